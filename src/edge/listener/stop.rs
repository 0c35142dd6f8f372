//! The signal to stop.
//!
//! Owns: one sender, any number of listeners. Dropping the sender stops them as well.
//! Must never: be un-said.
//! Look next: `app`, which turns the process's signals into it.

use tokio::sync::watch;

/// Says stop.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

/// Hears stop. Clones hear the same.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

/// A stopper and its stop.
#[must_use]
pub fn stop_signal() -> (Stopper, Stop) {
    let (sender, receiver) = watch::channel(false);
    (Stopper(sender), Stop(receiver))
}

impl Stopper {
    /// Everyone who holds the [`Stop`] begins to finish.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// Returns when it is time to stop; at once if it already was.
    pub async fn requested(&mut self) {
        // An error means that the stopper is gone, which is the same message.
        let _gone = self.0.wait_for(|stop| *stop).await;
    }
}

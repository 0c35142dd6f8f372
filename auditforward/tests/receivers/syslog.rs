//! rsyslog, over TLS with certificates on both sides.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;

use crate::ear::joined;
use crate::town::{
    INSTALLING, Town, assert_all, certificates, free_port, odd_pause, once_each, skipped, until,
};

/// rsyslog as a receiver; killed with this value.
struct Rsyslog {
    process: Child,
}

impl Rsyslog {
    fn start(folder: &Path, port: u16) -> Self {
        let at = |name: &str| folder.join(name).display().to_string();
        let config = format!(
            r#"global(workDirectory="{work}" maxMessageSize="64k" defaultNetstreamDriver="gtls"
  defaultNetstreamDriverCAFile="{ca}" defaultNetstreamDriverCertFile="{certificate}" defaultNetstreamDriverKeyFile="{key}")
module(load="imtcp" streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/certvalid")
template(name="body" type="string" string="%syslogfacility-text% %syslogseverity-text% %msgid% %msg%\n")
ruleset(name="audit" queue.type="Direct") {{ action(type="omfile" file="{out}" template="body") }}
input(type="imtcp" address="127.0.0.1" port="{port}" ruleset="audit")
"#,
            work = folder.display(),
            ca = at("ca.pem"),
            certificate = at("server.pem"),
            key = at("server.key"),
            out = at("received.log"),
        );
        fs::write(folder.join("rsyslog.conf"), config).unwrap();
        let mut command = Command::new("/usr/sbin/rsyslogd");
        command.args(["-n", "-f", &at("rsyslog.conf"), "-i", &at("rsyslog.pid")]);
        let process = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        Self { process }
    }
}

impl Drop for Rsyslog {
    /// SIGKILL.
    fn drop(&mut self) {
        let _over = self.process.kill();
        let _over = self.process.wait();
    }
}

fn installed() -> bool {
    let _one_at_a_time = INSTALLING.lock().unwrap_or_else(PoisonError::into_inner);
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rsyslog.sh");
    let output = Command::new("bash").arg(script).output().unwrap();
    if !output.status.success() {
        skipped("rsyslog", &String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

/// The bodies of what rsyslog wrote, and how each was classed.
fn received(path: &PathBuf) -> (Vec<String>, Vec<String>) {
    let text = fs::read_to_string(path).unwrap();
    let line = |line: &str| {
        let (head, body) = line.split_once('{').unwrap_or_else(|| panic!("{line:?}"));
        (head.trim().to_owned(), format!("{{{body}"))
    };
    // A line that was being written when the receiver was killed has no end.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(line).unzip()
}

#[test]
fn everything_arrives_at_rsyslog_whoever_is_killed() {
    if !installed() {
        return;
    }
    let town = Town::new();
    certificates(town.folder.path());
    let port = free_port();
    town.configure(&format!(
        "[[syslog]]\nname = \"siem\"\naddress = \"localhost:{port}\"\nca = \"ca.pem\"\ncertificate = \"client.pem\"\nprivate_key = \"client.key\"\n"
    ));
    let mut rsyslog = Some(Rsyslog::start(town.folder.path(), port));
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..40 {
                town.write(15, if number % 10 == 0 { 150 } else { 2 });
                thread::sleep(Duration::from_millis(200));
            }
        });
        for number in 0..8 {
            let forwarder = town.forward();
            thread::sleep(odd_pause(number));
            match number {
                2 | 5 => drop(rsyslog.take()),
                3 | 6 => rsyslog = Some(Rsyslog::start(town.folder.path(), port)),
                _ => {}
            }
            drop(forwarder);
        }
    });
    let _forwarder = town.forward();
    town.settle("siem");
    let (heads, bodies) = received(&town.path("received.log"));
    let (arrived, again) = once_each(joined(bodies.into_iter()).into_iter());
    eprintln!("rsyslog: {} items, {again} came more than once", arrived.len());
    assert_all(&arrived, &town.expected(true));
    // Facility 13 is spelled differently by different programs.
    assert!(heads.iter().any(|head| head.ends_with("warning refusal")), "{:?}", heads.first());
    assert!(heads.iter().any(|head| head.ends_with("info release")));
}

/// Nothing is sent to a receiver that the authority does not know.
#[test]
fn a_stranger_gets_nothing() {
    if !installed() {
        return;
    }
    let town = Town::new();
    certificates(town.folder.path());
    let port = free_port();
    let _rsyslog = Rsyslog::start(town.folder.path(), port);
    let other = town.path("other");
    fs::create_dir(&other).unwrap();
    certificates(&other);
    town.configure(&format!(
        "[[syslog]]\nname = \"siem\"\naddress = \"localhost:{port}\"\nca = \"other/ca.pem\"\ncertificate = \"client.pem\"\nprivate_key = \"client.key\"\n"
    ));
    let _forwarder = town.forward();
    let told = until(Duration::from_secs(30), || {
        let trouble = town.status("siem")["trouble"]["what"].as_str()?.to_owned();
        trouble.contains("certificate").then_some(trouble)
    });
    assert!(told.is_some(), "{}", town.status("siem"));
    assert_eq!(town.status("siem")["next"], 0);
    assert!(!town.path("received.log").exists());
}

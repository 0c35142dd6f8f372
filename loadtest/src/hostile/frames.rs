//! HTTP/2 frames written by hand (RFC 9113, RFC 7541), well-formed or not.
//!
//! Owns: the bytes of frames and header blocks, and reading what the other side says until it ends the connection.
//! Must never: be used for a caller who behaves: those use a library that keeps the rules.
//! Look next: `lanes`, which floods with them.

use super::tally::Tally;
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// RFC 9113 section 3.4.
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const PAYLOAD_BYTES_MAX: usize = 16 * 1024;

/// Frame types, RFC 9113 section 6.
pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RESET: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;

pub(super) const END_STREAM: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;

/// `SETTINGS_INITIAL_WINDOW_SIZE`
const INITIAL_WINDOW_SIZE: u8 = 4;
/// The largest window there is.
pub(super) const WINDOW_MAX: u32 = 0x7fff_ffff;

/// One frame. A payload longer than a frame may be is cut.
pub(super) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let payload = payload.get(..payload.len().min(PAYLOAD_BYTES_MAX)).unwrap_or_default();
    let [_, high, middle, low] = u32::try_from(payload.len()).unwrap_or(0).to_be_bytes();
    let mut bytes = vec![high, middle, low, kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// The preface, and settings that grant this window to each stream and a large one to the connection.
pub(super) fn opening(stream_window: u32) -> Vec<u8> {
    let mut setting = vec![0, INITIAL_WINDOW_SIZE];
    setting.extend_from_slice(&stream_window.to_be_bytes());
    let mut bytes = PREFACE.to_vec();
    bytes.extend(frame(SETTINGS, 0, 0, &setting));
    bytes.extend(frame(WINDOW_UPDATE, 0, 0, &(WINDOW_MAX - 65_535).to_be_bytes()));
    bytes
}

/// RFC 7541 section 5.1, behind the bits of `first`.
fn integer(first: u8, prefix: u8, value: usize, block: &mut Vec<u8>) {
    let most = (1_usize << prefix) - 1;
    let byte = |value: usize| u8::try_from(value & 0xff).unwrap_or(0);
    if value < most {
        block.push(first | byte(value));
        return;
    }
    block.push(first | byte(most));
    let mut left = value - most;
    while left >= 128 {
        block.push(byte(left % 128 + 128));
        left /= 128;
    }
    block.push(byte(left));
}

fn string(text: &[u8], block: &mut Vec<u8>) {
    integer(0, 7, text.len(), block);
    block.extend_from_slice(text);
}

/// A header whose name is spelt out, which is put into no table.
pub(super) fn header(name: &str, value: &[u8], block: &mut Vec<u8>) {
    block.push(0);
    string(name.as_bytes(), block);
    string(value, block);
}

/// The header block of a request.
pub(super) fn request(is_post: bool, path: &str, authority: &str, token: &[u8]) -> Vec<u8> {
    // Fields of the static table (RFC 7541 appendix A): `:method` GET or POST, `:scheme` https.
    let mut block = vec![if is_post { 0x83 } else { 0x82 }, 0x87];
    integer(0, 4, 4, &mut block);
    string(path.as_bytes(), &mut block);
    integer(0, 4, 1, &mut block);
    string(authority.as_bytes(), &mut block);
    header("authorization", token, &mut block);
    header("accept", b"application/fhir+json", &mut block);
    block
}

/// The name of an error code, RFC 9113 section 7.
fn error_name(code: u32) -> &'static str {
    match code {
        0 => "NO_ERROR",
        1 => "PROTOCOL_ERROR",
        2 => "INTERNAL_ERROR",
        3 => "FLOW_CONTROL_ERROR",
        5 => "STREAM_CLOSED",
        6 => "FRAME_SIZE_ERROR",
        7 => "REFUSED_STREAM",
        8 => "CANCEL",
        9 => "COMPRESSION_ERROR",
        11 => "ENHANCE_YOUR_CALM",
        _ => "another code",
    }
}

/// Reads frames until the connection ends, and says how. Answers and resets of streams are counted on the way.
pub(super) async fn listen(mut from: impl AsyncRead + Unpin, tally: &Tally) -> String {
    let mut end = None;
    loop {
        let mut head = [0_u8; 9];
        if from.read_exact(&mut head).await.is_err() {
            return end.unwrap_or_else(|| "closed".to_owned());
        }
        let [high, middle, low, kind, _, _, _, _, _] = head;
        let length = u32::from_be_bytes([0, high, middle, low]);
        let mut payload = vec![0_u8; usize::try_from(length).unwrap_or(0)];
        if from.read_exact(&mut payload).await.is_err() {
            return end.unwrap_or_else(|| "closed".to_owned());
        }
        match kind {
            GOAWAY => {
                let code = payload.get(4..8).and_then(|code| code.try_into().ok()).map(u32::from_be_bytes);
                let name = error_name(code.unwrap_or(u32::MAX));
                if code != Some(0) {
                    return format!("GOAWAY {name}");
                }
                end = Some(format!("GOAWAY {name}"));
            }
            HEADERS => tally.ended("answers begun"),
            RESET => tally.ended("streams reset"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_and_blocks_are_as_the_rfcs_show_them() {
        assert_eq!(frame(PING, 0, 0, &[7; 8]), [&[0, 0, 8, 6, 0, 0, 0, 0, 0][..], &[7; 8]].concat());
        assert_eq!(frame(RESET, 0, 3, &[0, 0, 0, 8]).get(5..9), Some(&[0, 0, 0, 3][..]));
        // RFC 7541 appendix C.1: 10 and 1337 with a prefix of five bits, 42 with one of eight.
        for (value, prefix, expected) in
            [(10, 5, vec![10]), (1337, 5, vec![31, 154, 10]), (42, 8, vec![42]), (31, 5, vec![31, 0])]
        {
            let mut block = Vec::new();
            integer(0, prefix, value, &mut block);
            assert_eq!(block, expected, "{value}");
        }
        let mut block = Vec::new();
        header("custom-key", b"custom-header", &mut block);
        // Appendix C.2.1, without its index.
        assert_eq!(block, [b"\x00\x0acustom-key\x0dcustom-header".as_slice()].concat());
        assert!(request(false, "/a", "b", b"c").starts_with(b"\x82\x87\x04\x02/a\x01\x01b"));
    }

    #[tokio::test]
    async fn the_end_of_a_connection_is_told() {
        let goaway = |code: u8| frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, code]);
        let cases = [
            ([frame(HEADERS, 0, 1, b"x"), goaway(11)].concat(), "GOAWAY ENHANCE_YOUR_CALM"),
            ([frame(RESET, 0, 1, &[0; 4]), goaway(0)].concat(), "GOAWAY NO_ERROR"),
            (vec![0, 0], "closed"),
            (frame(DATA, 0, 1, b"abc").get(..10).unwrap().to_vec(), "closed"),
        ];
        for (bytes, expected) in cases {
            assert_eq!(listen(bytes.as_slice(), &Tally::default()).await, expected);
        }
    }
}

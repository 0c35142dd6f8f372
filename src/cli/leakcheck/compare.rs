//! Two answers, and where they first differ.
//!
//! Owns: what may differ between any two requests (date, request id, the gate's address and the time it was started, what
//! is sealed) and is made equal before the comparison, and the short place of a difference.
//! Must never: make anything else equal; print more of an answer than shows the difference.
//! Look next: `pair`, which asks.

/// An answer as it came.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    /// Decoded, if it came compressed.
    pub(super) body: Vec<u8>,
}

/// An answer without what no two answers share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Plain {
    pub(super) status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

/// What else an EMR of the hospital's own sets by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Clock {
    /// Both EMRs stamp alike: everything is compared, the length of what is sealed too.
    Same,
    /// `lastUpdated`, `Last-Modified`, ids that the EMR gives, and the length of what is sealed are set aside.
    Own,
}

/// What is one gate's own, and would differ for no other reason.
#[derive(Clone, Copy, Debug)]
pub(super) struct Own<'o> {
    /// The gate's public base URL.
    pub(super) base: &'o str,
    /// Its issuer's URL.
    pub(super) issuer: &'o str,
    /// Ids that its EMR gave to records just made.
    pub(super) minted: &'o [String],
    pub(super) clock: Clock,
}

/// What stands before a sealed token in a URL of ours.
const SEALED: &[&str] = &["~page=", "~export/", "~file/"];
/// What a statement of capabilities begins with, up to the time at which its gate was started.
const STATED_SINCE: &str = "{\"resourceType\":\"CapabilityStatement\",\"status\":\"active\",\"date\":\"";
/// How much of each answer is shown around the place.
const SHOWN_BYTES: usize = 48;

impl Answer {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// As [`Plain`].
    pub(super) fn plain(&self, own: Own<'_>) -> Plain {
        let Own { base, issuer, minted, clock } = own;
        let id = self.header("x-request-id").unwrap_or_default().to_owned();
        let tidy = |text: &str| {
            let mut text = text.replace(base, "BASE").replace(issuer, "ISSUER");
            if !id.is_empty() {
                text = text.replace(&id, "REQUEST-ID");
            }
            if clock == Clock::Own {
                for id in minted {
                    text = text.replace(id.as_str(), "NEW-ID");
                }
                text = blank(&text, "\"lastUpdated\":\"", false);
            }
            let text = blank(&text, STATED_SINCE, true);
            SEALED.iter().fold(text, |text, mark| blank(&text, mark, clock == Clock::Same))
        };
        let body = match std::str::from_utf8(&self.body) {
            Ok(text) => tidy(text).into_bytes(),
            Err(_) => self.body.clone(),
        };
        let coded = self.header("content-encoding").is_some();
        let aside = |name: &str| {
            name == "date"
                || (name == "content-length" && coded)
                || (clock == Clock::Own && ["last-modified", "content-length"].contains(&name))
        };
        let headers = self.headers.iter().filter(|(name, _)| !aside(name));
        let mut headers: Vec<_> = headers.map(|(name, value)| (name.clone(), tidy(value))).collect();
        headers.sort();
        Plain { status: self.status, headers, body }
    }

    /// The next page, if there is one, or what else is to be followed: below the base.
    pub(super) fn follow(&self, base: &str) -> Vec<String> {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_default();
        let text =
            |value: &serde_json::Value, key: &str| value.get(key).and_then(|v| v.as_str()).map(str::to_owned);
        let list = |key: &str| body.get(key).and_then(|v| v.as_array()).cloned().unwrap_or_default();
        let links = list("link").into_iter().filter(|link| text(link, "relation").as_deref() == Some("next"));
        let files = ["output", "error", "deleted"].into_iter().flat_map(list);
        let mut urls: Vec<String> = links.chain(files).filter_map(|one| text(&one, "url")).collect();
        if self.status == 202 {
            urls.extend(self.header("content-location").map(str::to_owned));
        }
        let below = |url: String| Some(url.strip_prefix(base)?.trim_start_matches('/').to_owned());
        urls.into_iter().filter_map(below).collect()
    }

    /// The id of a record that was made, from `Location`.
    pub(super) fn minted(&self) -> Option<String> {
        let path = self.header("location").filter(|_| self.status == 201)?;
        let path = path.split("/_history").next()?;
        path.rsplit('/').next().map(str::to_owned)
    }
}

/// What follows each `mark` up to the end of its value is replaced, by its length if that is `measured`.
fn blank(text: &str, mark: &str, measured: bool) -> String {
    let mut pieces = text.split(mark);
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find(['"', '&', '>', '\'', ' ', '\\', '<']).unwrap_or(piece.len());
        let rest = piece.get(end..).unwrap_or_default();
        let length = if measured { end.to_string() } else { String::new() };
        out.push_str(&format!("{mark}[{length}]{rest}"));
    }
    out
}

impl Plain {
    /// Where the other answer differs, and how; none when it does not.
    pub(super) fn difference(&self, other: &Self) -> Option<String> {
        if self.status != other.status {
            return Some(format!("status: A {} B {}", self.status, other.status));
        }
        let headers = self.headers.iter().zip(&other.headers).find(|(one, two)| one != two);
        // A length that differs is told by the body itself, unless there is none.
        let headers = headers.filter(|((name, _), _)| name != "content-length" || self.body == other.body);
        if let Some(((name, one), (other_name, two))) = headers {
            return Some(format!("header: A {name}: {} B {other_name}: {}", short(one), short(two)));
        }
        if self.body == other.body {
            let counts = (self.headers.len(), other.headers.len());
            return (counts.0 != counts.1).then(|| format!("headers: A has {} B has {}", counts.0, counts.1));
        }
        let same = self.body.iter().zip(&other.body).take_while(|(one, two)| one == two).count();
        let around = |body: &[u8]| {
            let bytes = body.iter().copied().skip(same.saturating_sub(SHOWN_BYTES / 2)).take(SHOWN_BYTES);
            String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
        };
        Some(format!("body at byte {same}: A …{}… B …{}…", around(&self.body), around(&other.body)))
    }
}

fn short(text: &str) -> String {
    text.chars().take(SHOWN_BYTES).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(id: &str, status: u16, headers: &[(&str, &str)], body: &str) -> Answer {
        let own = [("x-request-id", id), ("date", id)];
        let headers = own.iter().chain(headers).map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Answer { status, headers, body: body.as_bytes().to_vec() }
    }

    fn compare(one: &Answer, two: &Answer, clock: Clock) -> Option<String> {
        let own = |base, issuer, minted| Own { base, issuer, minted, clock };
        let (first, second) = (["s1".to_owned()], ["s2".to_owned()]);
        let one = one.plain(own("https://a/f", "http://i", &first));
        one.difference(&two.plain(own("https://b/f", "http://j", &second)))
    }

    #[test]
    fn only_what_no_two_answers_share_is_set_aside() {
        let one =
            answer("id-1", 200, &[("etag", "1")], "{\"u\":\"https://a/f/P?~page=abcd\",\"r\":\"id-1\"}");
        let two =
            answer("id-2", 200, &[("etag", "1")], "{\"u\":\"https://b/f/P?~page=efgh\",\"r\":\"id-2\"}");
        assert_eq!(compare(&one, &two, Clock::Same), None);
        for (changed, word) in [
            (answer("id-2", 404, &[("etag", "1")], "{}"), "status"),
            (answer("id-2", 200, &[("etag", "3")], "{}"), "header"),
            (
                answer(
                    "id-2",
                    200,
                    &[("etag", "1"), ("z", "y")],
                    "{\"u\":\"https://b/f/P?~page=efgh\",\"r\":\"id-2\"}",
                ),
                "headers",
            ),
            (
                answer("id-2", 200, &[("etag", "1")], "{\"u\":\"https://b/f/P?~page=efghi\",\"r\":\"id-2\"}"),
                "body",
            ),
        ] {
            let found = compare(&one, &changed, Clock::Same);
            assert!(found.as_ref().is_some_and(|found| found.starts_with(word)), "{found:?}");
        }
    }

    #[test]
    fn gates_may_have_been_started_at_different_times() {
        let stated =
            |date: &str| answer("id-7", 200, &[], &format!("{STATED_SINCE}{date}\",\"kind\":\"x\"}}"));
        assert_eq!(compare(&stated("2026-01-01"), &stated("2026-01-02"), Clock::Same), None);
        let dated = |date: &str| answer("id-7", 200, &[], &format!("{{\"date\":\"{date}\"}}"));
        assert!(compare(&dated("2026-01-01"), &dated("2026-01-02"), Clock::Same).is_some());
    }

    #[test]
    fn an_emr_with_its_own_clock_may_differ_in_stamps_only() {
        let one = answer("x1", 201, &[], "{\"id\":\"s1\",\"meta\":{\"lastUpdated\":\"2026\"},\"v\":4}");
        let two = answer("x2", 201, &[], "{\"id\":\"s2\",\"meta\":{\"lastUpdated\":\"2027\"},\"v\":4}");
        assert_eq!(compare(&one, &two, Clock::Own), None);
        assert!(compare(&one, &two, Clock::Same).is_some());
        let other = answer("x2", 201, &[], "{\"id\":\"s2\",\"meta\":{\"lastUpdated\":\"2027\"},\"v\":5}");
        assert!(compare(&one, &other, Clock::Own).is_some());
    }

    #[test]
    fn pages_files_and_jobs_are_followed() {
        let page = answer(
            "1",
            200,
            &[],
            r#"{"link":[{"relation":"self","url":"https://a/f/P"},{"relation":"next","url":"https://a/f/P?~page=x"}]}"#,
        );
        assert_eq!(page.follow("https://a/f"), ["P?~page=x"]);
        let job = answer("1", 202, &[("content-location", "https://a/f/~export/t")], "");
        assert_eq!(job.follow("https://a/f"), ["~export/t"]);
        let made = answer("1", 201, &[("location", "https://a/f/Patient/s9/_history/1")], "");
        assert_eq!(made.minted().as_deref(), Some("s9"));
    }
}

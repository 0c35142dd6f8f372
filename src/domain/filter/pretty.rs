//! White space for people: `_pretty=true`.
//!
//! Owns: where lines break and how far they are indented.
//! Must never: change a byte of a string, number, name or literal; only white space between them is ours.
//! Look next: `text`, the rules of strings.

use super::text;

/// The same JSON, each member and item on a line of its own, two spaces a level, `: ` behind names. Empty objects
/// and arrays stay `{}` and `[]`. What is no JSON comes out as no JSON; nothing of it is lost but white space.
#[must_use]
pub fn pretty(json: &[u8]) -> Vec<u8> {
    let mut printer = Printer { out: Vec::with_capacity(json.len() * 2), level: 0 };
    let mut rest = json;
    while let Some((&first, behind)) = rest.split_first() {
        rest = match first {
            b' ' | b'\n' | b'\r' | b'\t' => behind,
            b'{' | b'[' => printer.open(first, behind),
            b'}' | b']' => printer.close(first, behind),
            b',' => printer.comma(behind),
            b':' => printer.put(b": ", behind),
            b'"' => printer.token(rest, string_bytes(behind) + 1),
            _ => printer.token(rest, plain_bytes(rest)),
        };
    }
    printer.out
}

/// Bytes up to and with the closing quote.
fn string_bytes(behind_quote: &[u8]) -> usize {
    let mut at = 0;
    loop {
        at += text::plain_run(behind_quote.get(at..).unwrap_or_default());
        match behind_quote.get(at) {
            Some(b'"') => return at + 1,
            Some(b'\\') => at += 2,
            Some(_) => at += 1,
            None => return behind_quote.len(),
        }
    }
}

/// Bytes of a number or literal: all but what JSON gives a meaning of its own.
fn plain_bytes(rest: &[u8]) -> usize {
    let special = |byte: &u8| b" \n\r\t{}[],:\"".contains(byte);
    rest.iter().position(special).unwrap_or(rest.len()).max(1)
}

struct Printer {
    out: Vec<u8>,
    level: usize,
}

impl Printer {
    fn put<'r>(&mut self, bytes: &[u8], behind: &'r [u8]) -> &'r [u8] {
        self.out.extend_from_slice(bytes);
        behind
    }

    fn token<'r>(&mut self, rest: &'r [u8], bytes: usize) -> &'r [u8] {
        let (token, behind) = rest.split_at_checked(bytes).unwrap_or((rest, &[]));
        self.put(token, behind)
    }

    fn line(&mut self) {
        self.out.push(b'\n');
        self.out.resize(self.out.len() + 2 * self.level, b' ');
    }

    fn open<'r>(&mut self, bracket: u8, behind: &'r [u8]) -> &'r [u8] {
        self.out.push(bracket);
        let blanks = behind.iter().take_while(|byte| b" \n\r\t".contains(byte)).count();
        let inner = behind.get(blanks..).unwrap_or_default();
        if let Some((&closing @ (b'}' | b']'), behind)) = inner.split_first() {
            self.out.push(closing);
            return behind;
        }
        self.level += 1;
        self.line();
        inner
    }

    fn close<'r>(&mut self, bracket: u8, behind: &'r [u8]) -> &'r [u8] {
        self.level = self.level.saturating_sub(1);
        self.line();
        self.put(&[bracket], behind)
    }

    fn comma<'r>(&mut self, behind: &'r [u8]) -> &'r [u8] {
        self.out.push(b',');
        self.line();
        behind
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn members_and_items_stand_on_lines_of_their_own() {
        let given = r#" {"a":[1.0,{"b":"\u00e9, {}\"\\"}],"c":{},"d":[ ],"e":null}"#;
        let lines = [
            "{",
            r#"  "a": ["#,
            "    1.0,",
            "    {",
            r#"      "b": "\u00e9, {}\"\\""#,
            "    }",
            "  ],",
            r#"  "c": {},"#,
            r#"  "d": [],"#,
            r#"  "e": null"#,
            "}",
        ];
        assert_eq!(String::from_utf8(pretty(given.as_bytes())).unwrap(), lines.join("\n"));
    }

    /// The same without white space between tokens.
    fn minify(json: &str) -> String {
        let (mut out, mut text, mut escaped) = (String::new(), false, false);
        for letter in json.chars() {
            if text || !" \n\r\t".contains(letter) {
                out.push(letter);
            }
            if letter == '"' && !escaped {
                text = !text;
            }
            escaped = text && letter == '\\' && !escaped;
        }
        out
    }

    const SCALARS: [&str; 7] =
        ["null", "true", "-0.010e+7", r#""""#, r#"" a: [\"\\\u00fc\n{ ""#, "\" é,\"", r#""\\""#];

    fn json() -> impl Strategy<Value = String> {
        let leaf = (proptest::sample::select(SCALARS.as_slice()), space())
            .prop_map(|(one, space)| format!("{space}{one}"));
        leaf.prop_recursive(5, 40, 5, |inner| {
            let items = proptest::collection::vec((inner, space()), 0..5);
            (items, any::<bool>()).prop_map(|(items, object)| {
                let member = |(at, (value, space)): (usize, &(String, &str))| {
                    if object {
                        format!("{space}\"k {at}\"{space}:{value}{space}")
                    } else {
                        format!("{value}{space}")
                    }
                };
                let items: Vec<String> = items.iter().enumerate().map(member).collect();
                if object { format!("{{ {}}}", items.join(",")) } else { format!("[{} ]", items.join(",")) }
            })
        })
    }

    fn space() -> impl Strategy<Value = &'static str> {
        proptest::sample::select(["", "", " ", "\n  ", "\r\n\t"].as_slice())
    }

    proptest! {
        #[test]
        fn only_white_space_between_tokens_is_ours(json in json()) {
            let shown = String::from_utf8(pretty(json.as_bytes())).unwrap();
            prop_assert_eq!(minify(&shown), minify(&json));
            prop_assert_eq!(pretty(shown.as_bytes()), shown.clone().into_bytes(), "a second time changes nothing");
            prop_assert!(serde_json::from_str::<serde_json::Value>(&shown).is_ok());
        }

        #[test]
        fn any_bytes_can_be_shown(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let bare = |bytes: &[u8]| bytes.iter().copied().filter(|byte| !b" \n\r\t".contains(byte)).collect::<Vec<_>>();
            prop_assert_eq!(bare(&pretty(&bytes)), bare(&bytes));
        }
    }
}

//! Values as annotations write them: the GVariant Text Format, as far as properties of units use it. Numbers, booleans,
//! strings, byte strings, arrays, tuples, variants; type words (`uint64 5`) and annotations (`@as []`).

use crate::Value;

/// How deep values may nest.
const DEPTH: usize = 16;

/// Reads a text. Errors: what is wrong with it.
pub fn parse(text: &str) -> Result<Value, String> {
    let mut parser = Parser { rest: text };
    let value = parser.value(None, DEPTH)?;
    match parser.next() {
        None => Ok(value),
        Some(_) => Err(format!("{:?} after the value", parser.rest)),
    }
}

/// A name and value of `org.systemd.property.NAME` as systemd's D-Bus interface has them: `…Sec`, as unit files write it,
/// becomes `…USec`, and seconds become microseconds. Errors: what is wrong.
pub fn property(name: &str, text: &str) -> Result<(String, Value), String> {
    if name.len() < 3 || !name.bytes().all(|b| b.is_ascii_alphabetic()) {
        return Err(format!("{name:?} is not the name of a property (letters, at least three)"));
    }
    let value = parse(text)?;
    // TimeoutStopUSec ends in Sec too: what is meant has a small letter before it.
    let seconds = name.strip_suffix("Sec").filter(|n| n.ends_with(|c: char| c.is_ascii_lowercase()));
    let Some(stem) = seconds else { return Ok((name.to_owned(), value)) };
    let micros = match value {
        Value::Byte(n) => i128::from(n) * 1_000_000,
        Value::I16(n) => i128::from(n) * 1_000_000,
        Value::U16(n) => i128::from(n) * 1_000_000,
        Value::I32(n) => i128::from(n) * 1_000_000,
        Value::U32(n) => i128::from(n) * 1_000_000,
        Value::I64(n) => i128::from(n) * 1_000_000,
        Value::U64(n) => i128::from(n) * 1_000_000,
        Value::Double(n) => (n * 1e6) as i128,
        _ => return Err(format!("{name} takes a number of seconds")),
    };
    let micros = u64::try_from(micros).map_err(|_| format!("{text} s are not from 0 to 2^64 us"))?;
    Ok((format!("{stem}USec"), Value::U64(micros)))
}

struct Parser<'a> {
    rest: &'a str,
}

const WORDS: [(&str, &str); 12] = [
    ("byte", "y"),
    ("boolean", "b"),
    ("int16", "n"),
    ("uint16", "q"),
    ("int32", "i"),
    ("uint32", "u"),
    ("int64", "x"),
    ("uint64", "t"),
    ("double", "d"),
    ("string", "s"),
    ("objectpath", "o"),
    ("signature", "g"),
];

impl<'a> Parser<'a> {
    /// The next character that is no blank.
    fn next(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn accept(&mut self, c: char) -> bool {
        let there = self.next() == Some(c);
        if there {
            self.rest = &self.rest[c.len_utf8()..];
        }
        there
    }

    fn word(&mut self, fits: impl Fn(char) -> bool) -> &'a str {
        let end = self.rest.find(|c| !fits(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        word
    }

    /// A value; `wanted` is its type, where one is known.
    fn value(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        let depth = depth.checked_sub(1).ok_or("nested too deeply")?;
        match self.next() {
            None => Err("a value is missing".into()),
            Some('@') => {
                self.accept('@');
                let kind = self.word(|c| "ybnqiuxtdsogva()".contains(c));
                self.value(Some(kind), depth)
            }
            Some('[') => self.array(wanted, depth),
            Some('(') => self.tuple(wanted, depth),
            Some('<') => {
                self.accept('<');
                let inner = self.value(None, depth)?;
                if self.accept('>') {
                    Ok(Value::Variant(Box::new(inner)))
                } else {
                    Err("a > is missing".into())
                }
            }
            Some('\'' | '"') => {
                let text = self.quoted()?;
                match wanted {
                    None | Some("s") => Ok(Value::Str(text)),
                    Some("o") => Ok(Value::Path(text)),
                    Some("g") => Ok(Value::Signature(text)),
                    Some(other) => Err(format!("a string where {other} is wanted")),
                }
            }
            Some('b') if self.rest.starts_with("b'") || self.rest.starts_with("b\"") => {
                self.accept('b');
                let mut bytes = self.quoted()?.into_bytes();
                bytes.push(0); // a byte string ends so
                Ok(Value::bytes(&bytes))
            }
            Some(c) if c.is_ascii_digit() || "+-.".contains(c) => self.number(wanted),
            Some(_) => self.named(wanted, depth),
        }
    }

    fn named(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        let word = self.word(|c| c.is_ascii_alphanumeric());
        match word {
            "true" | "false" if wanted.is_none_or(|w| w == "b") => Ok(Value::Bool(word == "true")),
            _ => match WORDS.iter().find(|(name, _)| *name == word) {
                Some((_, kind)) => self.value(Some(kind), depth),
                None => Err(format!(
                    "{:?} is not a value (strings stand in quotes)",
                    format!("{word}{}", self.rest)
                )),
            },
        }
    }

    fn number(&mut self, wanted: Option<&str>) -> Result<Value, String> {
        let word = self.word(|c| c.is_ascii_alphanumeric() || "+-._".contains(c));
        let real = word.contains(['.']) || (word.contains(['e', 'E']) && !word.contains("0x"));
        let kind = wanted.unwrap_or(if real { "d" } else { "i" });
        let wrong = || format!("{word:?} is not a number of type {kind}");
        if kind == "d" {
            return word.parse().map(Value::Double).map_err(|_| wrong());
        }
        let (sign, digits) = match word.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, word.strip_prefix('+').unwrap_or(word)),
        };
        let (digits, base) = match digits.strip_prefix("0x") {
            Some(hex) => (hex, 16),
            None if digits.len() > 1 && digits.starts_with('0') => (digits, 8),
            None => (digits, 10),
        };
        let n = i128::from_str_radix(digits, base).map_err(|_| wrong())? * sign;
        let made = match kind {
            "y" => u8::try_from(n).ok().map(Value::Byte),
            "n" => i16::try_from(n).ok().map(Value::I16),
            "q" => u16::try_from(n).ok().map(Value::U16),
            "i" => i32::try_from(n).ok().map(Value::I32),
            "u" => u32::try_from(n).ok().map(Value::U32),
            "x" => i64::try_from(n).ok().map(Value::I64),
            "t" => u64::try_from(n).ok().map(Value::U64),
            _ => None,
        };
        made.ok_or_else(wrong)
    }

    fn quoted(&mut self) -> Result<String, String> {
        let mut chars = self.rest.char_indices();
        let quote = chars.next().map(|(_, c)| c);
        let mut out = String::new();
        while let Some((i, c)) = chars.next() {
            match c {
                _ if Some(c) == quote => {
                    self.rest = &self.rest[i + 1..];
                    return Ok(out);
                }
                '\\' => match chars.next().map(|(_, c)| c) {
                    Some('n') => out.push('\n'),
                    Some('t') => out.push('\t'),
                    Some(c @ ('\\' | '\'' | '"')) => out.push(c),
                    _ => return Err("an escape that is not one of \\n \\t \\\\ \\' \\\"".into()),
                },
                '\0' => return Err("a NUL byte in a string".into()),
                _ => out.push(c),
            }
        }
        Err("a string without its end".into())
    }

    fn array(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        self.accept('[');
        let mut element = match wanted {
            None => None,
            Some(w) => Some(w.strip_prefix('a').ok_or(format!("an array where {w} is wanted"))?.to_owned()),
        };
        let mut list: Vec<Value> = Vec::new();
        while !self.accept(']') {
            if !list.is_empty() && !self.accept(',') {
                return Err("a , or ] is missing".into());
            }
            let value = self.value(element.as_deref(), depth)?;
            let kind = value.signature();
            if element.as_ref().is_some_and(|e| *e != kind) {
                return Err("an array of different types".into());
            }
            element = Some(kind);
            list.push(value);
        }
        let element = element.ok_or("an empty array needs its type, such as @as []")?;
        Ok(Value::Array(element, list))
    }

    fn tuple(&mut self, wanted: Option<&str>, depth: usize) -> Result<Value, String> {
        self.accept('(');
        let mut fields = Vec::new();
        while !self.accept(')') {
            if !fields.is_empty() && !self.accept(',') {
                return Err("a , or ) is missing".into());
            }
            if !fields.is_empty() && self.next() == Some(')') {
                continue;
            }
            fields.push(self.value(None, depth)?);
        }
        let tuple = Value::Struct(fields);
        match wanted {
            Some(w) if w != tuple.signature() => Err(format!("{} where {w} is wanted", tuple.signature())),
            _ => Ok(tuple),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_of_every_kind() {
        for (text, value) in [
            ("5", Value::I32(5)),
            ("-1", Value::I32(-1)),
            ("0x10", Value::I32(16)),
            ("uint64 90000000", Value::U64(90_000_000)),
            ("byte 7", Value::Byte(7)),
            ("@t 5", Value::U64(5)),
            ("1.5", Value::Double(1.5)),
            ("true", Value::Bool(true)),
            ("'a b'", Value::str("a b")),
            (r#""it's""#, Value::str("it's")),
            (r"'it\'s'", Value::str("it's")),
            ("objectpath '/a'", Value::Path("/a".into())),
            ("b'x'", Value::bytes(b"x\0")),
            ("['a', 'b']", Value::strings(["a", "b"])),
            ("@as []", Value::Array("s".into(), vec![])),
            ("('a', uint32 1)", Value::Struct(vec![Value::str("a"), Value::U32(1)])),
            ("<true>", Value::Variant(Box::new(Value::Bool(true)))),
            (
                "[('a', 'b')]",
                Value::Array("(ss)".into(), vec![Value::Struct(vec![Value::str("a"), Value::str("b")])]),
            ),
        ] {
            assert_eq!(parse(text).as_ref(), Ok(&value), "{text}");
        }
    }

    #[test]
    fn what_is_no_value_is_refused() {
        for text in [
            "",
            "word",
            "'open",
            "5 5",
            "[1, 'a']",
            "[]",
            "uint32 -1",
            "byte 256",
            "uint32 'a'",
            "(1",
            "@as 5",
            "12a",
            &"[".repeat(99),
        ] {
            assert!(parse(text).is_err(), "{text:?} became {:?}", parse(text));
        }
    }

    #[test]
    fn seconds_become_microseconds() {
        let p = |n, t| property(n, t);
        assert_eq!(
            p("TimeoutStopSec", "uint32 456"),
            Ok(("TimeoutStopUSec".into(), Value::U64(456_000_000)))
        );
        assert_eq!(p("TimeoutStopSec", "1.5"), Ok(("TimeoutStopUSec".into(), Value::U64(1_500_000))));
        assert_eq!(p("TimeoutStopUSec", "uint64 7"), Ok(("TimeoutStopUSec".into(), Value::U64(7))));
        assert_eq!(p("FOOSec", "1"), Ok(("FOOSec".into(), Value::I32(1))));
        for (name, text) in
            [("Xo", "1"), ("Number1", "1"), ("TimeoutStopSec", "'x'"), ("TimeoutStopSec", "-1")]
        {
            assert!(property(name, text).is_err(), "{name}={text}");
        }
    }
}

//! Values to bytes and back: D-Bus Specification, Marshaling (Wire Format). In this machine's byte order: both ends are
//! on it.

use crate::Value;

/// How deep values may nest: D-Bus Specification, Valid Signatures (32 arrays and 32 structs).
const DEPTH: usize = 64;

/// What is written so far; its beginning is aligned to 8.
#[derive(Default)]
pub(crate) struct Writer(pub(crate) Vec<u8>);

/// The boundary that a type starts on.
fn alignment(signature: u8) -> usize {
    match signature {
        b'n' | b'q' => 2,
        b'b' | b'i' | b'u' | b's' | b'o' | b'a' => 4,
        b'x' | b't' | b'd' | b'(' | b'{' => 8,
        _ => 1,
    }
}

impl Writer {
    pub(crate) fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, bytes: &[u8]) {
        self.align(bytes.len());
        self.0.extend(bytes);
    }

    pub(crate) fn u32(&mut self, n: u32) {
        self.number(&n.to_ne_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    fn signature(&mut self, text: &str) {
        self.0.push(text.len() as u8);
        self.0.extend(text.as_bytes());
        self.0.push(0);
    }

    pub(crate) fn value(&mut self, value: &Value) {
        match value {
            Value::Byte(n) => self.0.push(*n),
            Value::Bool(b) => self.u32(u32::from(*b)),
            Value::I16(n) => self.number(&n.to_ne_bytes()),
            Value::U16(n) => self.number(&n.to_ne_bytes()),
            Value::I32(n) => self.number(&n.to_ne_bytes()),
            Value::U32(n) => self.u32(*n),
            Value::I64(n) => self.number(&n.to_ne_bytes()),
            Value::U64(n) => self.number(&n.to_ne_bytes()),
            Value::Double(n) => self.number(&n.to_ne_bytes()),
            Value::Str(t) | Value::Path(t) => self.text(t),
            Value::Signature(t) => self.signature(t),
            Value::Array(element, list) => self.array(element, list),
            Value::Struct(fields) => {
                self.align(8);
                fields.iter().for_each(|f| self.value(f));
            }
            Value::Variant(inner) => {
                self.signature(&inner.signature());
                self.value(inner);
            }
        }
    }

    /// The length counts the elements, not the padding before the first.
    fn array(&mut self, element: &str, list: &[Value]) {
        self.u32(0);
        let length_at = self.0.len() - 4;
        self.align(alignment(element.bytes().next().unwrap_or(b'y')));
        let begin = self.0.len();
        list.iter().for_each(|v| self.value(v));
        let length = (self.0.len() - begin) as u32;
        self.0[length_at..length_at + 4].copy_from_slice(&length.to_ne_bytes());
    }
}

/// What is left to read; positions count from a boundary of 8.
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { bytes, at: 0 }
    }

    pub(crate) fn align(&mut self, to: usize) -> Option<()> {
        self.at = self.at.next_multiple_of(to);
        (self.at <= self.bytes.len()).then_some(())
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let part = self.bytes.get(self.at..self.at.checked_add(n)?)?;
        self.at += n;
        Some(part)
    }

    fn number<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.align(N)?;
        self.take(N)?.try_into().ok()
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.number().map(u32::from_ne_bytes)
    }

    fn terminated(&mut self, length: usize) -> Option<String> {
        let text = String::from_utf8(self.take(length)?.to_vec()).ok()?;
        (self.take(1)? == [0]).then_some(text)
    }

    /// The values of a signature. `None` when the bytes are not such values.
    pub(crate) fn values(&mut self, signature: &str) -> Option<Vec<Value>> {
        let mut rest = signature.as_bytes();
        let mut out = Vec::new();
        while !rest.is_empty() {
            out.push(self.value(&mut rest, DEPTH)?);
        }
        Some(out)
    }

    /// One value; its type is taken off `signature`.
    fn value(&mut self, signature: &mut &[u8], depth: usize) -> Option<Value> {
        let depth = depth.checked_sub(1)?;
        let (kind, rest) = signature.split_first()?;
        *signature = rest;
        Some(match kind {
            b'y' => Value::Byte(self.take(1)?[0]),
            b'b' => Value::Bool(self.u32()? != 0),
            b'n' => Value::I16(i16::from_ne_bytes(self.number()?)),
            b'q' => Value::U16(u16::from_ne_bytes(self.number()?)),
            b'i' => Value::I32(i32::from_ne_bytes(self.number()?)),
            b'u' => Value::U32(self.u32()?),
            b'x' => Value::I64(i64::from_ne_bytes(self.number()?)),
            b't' => Value::U64(u64::from_ne_bytes(self.number()?)),
            b'd' => Value::Double(f64::from_ne_bytes(self.number()?)),
            b's' | b'o' => {
                let length = self.u32()? as usize;
                let text = self.terminated(length)?;
                if *kind == b's' { Value::Str(text) } else { Value::Path(text) }
            }
            b'g' => Value::Signature(self.signature()?),
            b'v' => {
                let inner = self.signature()?;
                let mut inner = inner.as_bytes();
                Value::Variant(Box::new(self.value(&mut inner, depth)?))
            }
            b'a' => self.array(signature, depth)?,
            b'(' => self.fields(signature, b')', depth)?,
            b'{' => self.fields(signature, b'}', depth)?,
            _ => return None,
        })
    }

    fn signature(&mut self) -> Option<String> {
        let length = usize::from(self.take(1)?[0]);
        self.terminated(length)
    }

    fn fields(&mut self, signature: &mut &[u8], end: u8, depth: usize) -> Option<Value> {
        self.align(8)?;
        let mut fields = Vec::new();
        while *signature.first()? != end {
            fields.push(self.value(signature, depth)?);
        }
        *signature = &signature[1..];
        Some(Value::Struct(fields))
    }

    fn array(&mut self, signature: &mut &[u8], depth: usize) -> Option<Value> {
        let length = self.u32()? as usize;
        let element = single(signature)?;
        self.align(alignment(*element.first()?))?;
        let end = self.at.checked_add(length).filter(|e| *e <= self.bytes.len())?;
        let mut list = Vec::new();
        while self.at < end {
            list.push(self.value(&mut &*element, depth)?);
        }
        *signature = &signature[element.len()..];
        (self.at == end).then(|| Value::Array(String::from_utf8_lossy(element).into_owned(), list))
    }
}

/// The first complete type of a signature.
fn single<'a>(signature: &&'a [u8]) -> Option<&'a [u8]> {
    let mut open = 0usize;
    for (i, c) in signature.iter().enumerate() {
        match c {
            b'(' | b'{' => open += 1,
            b')' | b'}' => open = open.checked_sub(1)?,
            b'a' => continue,
            _ => {}
        }
        if open == 0 {
            return Some(&signature[..=i]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(value: &Value) -> Vec<u8> {
        let mut w = Writer::default();
        w.value(value);
        let back = Reader::new(&w.0).values(&value.signature()).expect("readable");
        assert_eq!(back, std::slice::from_ref(value));
        w.0
    }

    #[test]
    fn every_type_comes_back() {
        for value in [
            Value::Byte(7),
            Value::Bool(true),
            Value::I16(-2),
            Value::U16(65535),
            Value::I32(-3),
            Value::U32(4),
            Value::I64(-5),
            Value::U64(u64::MAX),
            Value::Double(0.5),
            Value::str("text"),
            Value::Path("/a/b".into()),
            Value::Signature("a(sv)".into()),
            Value::bytes(&[1, 2, 3]),
            Value::Array("(ss)".into(), vec![]),
            Value::Struct(vec![Value::Byte(1), Value::U64(2)]),
            Value::properties(&[("PIDs".into(), Value::Array("u".into(), vec![Value::U32(9)]))]),
        ] {
            through(&value);
        }
    }

    /// The example of the specification's section on marshaling: an array of one 64-bit number.
    #[test]
    fn an_arrays_length_leaves_out_the_padding_before_it() {
        let bytes = through(&Value::Array("x".into(), vec![Value::I64(5)]));
        assert_eq!(
            bytes,
            [8u32.to_ne_bytes(), [0; 4]].concat().into_iter().chain(5i64.to_ne_bytes()).collect::<Vec<u8>>()
        );
    }

    #[test]
    fn what_ends_early_or_lies_about_its_length_is_refused() {
        let mut w = Writer::default();
        w.value(&Value::strings(["one", "two"]));
        for end in 0..w.0.len() {
            assert!(Reader::new(&w.0[..end]).values("as").is_none(), "{end} bytes");
        }
        w.0[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
        assert!(Reader::new(&w.0).values("as").is_none());
        assert!(Reader::new(&[0; 64]).values(&"v".repeat(2)).is_none());
        assert!(Reader::new(&[0; 8]).values("a").is_none());
    }
}

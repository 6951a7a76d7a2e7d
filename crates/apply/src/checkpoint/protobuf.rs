//! As much of Protocol Buffers' encoding (protobuf.dev, "Encoding") as criu's messages need: numbers, texts, messages.

const VARINT: u64 = 0;
const I64: u64 = 1;
const LENGTH: u64 = 2;
const I32: u64 = 5;

/// A message that is being written.
#[derive(Debug, Default, Clone)]
pub(super) struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value > 0x7f {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    /// A number, an enum's value, a bool.
    pub(super) fn number(mut self, field: u64, value: impl Into<i64>) -> Message {
        self.varint(field << 3 | VARINT);
        self.varint(value.into() as u64);
        self
    }

    /// A text or bytes.
    pub(super) fn bytes(mut self, field: u64, value: impl AsRef<[u8]>) -> Message {
        let value = value.as_ref();
        self.varint(field << 3 | LENGTH);
        self.varint(value.len() as u64);
        self.0.extend_from_slice(value);
        self
    }

    /// A message within this one.
    pub(super) fn message(self, field: u64, value: &Message) -> Message {
        self.bytes(field, &value.0)
    }

    /// Only if it is true: all of criu's switches are off by themselves.
    pub(super) fn switch(self, field: u64, on: bool) -> Message {
        if on { self.number(field, 1) } else { self }
    }

    /// Only if it is there.
    pub(super) fn text(self, field: u64, value: Option<&str>) -> Message {
        value.map_or(self.clone(), |v| self.bytes(field, v))
    }

    /// The message's bytes.
    pub(super) fn done(&self) -> &[u8] {
        &self.0
    }
}

/// A message that is being read: fields by number. Of a field that is given twice the last counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fields<'a>(&'a [u8]);

enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

impl<'a> Fields<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Fields<'a> {
        Fields(bytes)
    }

    fn find(self, field: u64) -> Option<Value<'a>> {
        let mut rest = self.0;
        let mut found = None;
        while let Some((number, value)) = next(&mut rest) {
            found = if number == field { Some(value) } else { found };
        }
        found
    }

    pub(super) fn number(self, field: u64) -> Option<i64> {
        if let Value::Number(n) = self.find(field)? { Some(n as i64) } else { None }
    }

    pub(super) fn message(self, field: u64) -> Option<Fields<'a>> {
        if let Value::Bytes(b) = self.find(field)? { Some(Fields(b)) } else { None }
    }

    pub(super) fn text(self, field: u64) -> Option<String> {
        self.message(field).map(|m| String::from_utf8_lossy(m.0).into_owned())
    }
}

fn varint(rest: &mut &[u8]) -> Option<u64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, tail) = rest.split_first()?;
        *rest = tail;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

fn take<'a>(rest: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (head, tail) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    *rest = tail;
    Some(head)
}

/// The next field; `None` at the end, and at what is not a field.
fn next<'a>(rest: &mut &'a [u8]) -> Option<(u64, Value<'a>)> {
    let key = varint(rest)?;
    let value = match key & 7 {
        VARINT => Value::Number(varint(rest)?),
        LENGTH => {
            let length = varint(rest)?;
            Value::Bytes(take(rest, length)?)
        }
        I64 => Value::Bytes(take(rest, 8)?),
        I32 => Value::Bytes(take(rest, 4)?),
        _ => return None,
    };
    Some((key >> 3, value))
}

#[cfg(test)]
mod tests {
    use super::{Fields, Message};

    /// The examples of protobuf.dev, "Encoding".
    #[test]
    fn the_examples_of_the_documentation() {
        assert_eq!(Message::default().number(1, 150).done(), [0x08, 0x96, 0x01]);
        assert_eq!(Message::default().bytes(2, "testing").done(), b"\x12\x07testing");
        let inner = Message::default().number(1, 150);
        assert_eq!(Message::default().message(3, &inner).done(), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        assert_eq!(Message::default().number(1, -2).done().len(), 11, "a negative int32 has ten bytes");
    }

    #[test]
    fn what_is_written_is_read() {
        let inner = Message::default().bytes(1, "script").number(2, 77);
        let whole = Message::default().number(1, 6).switch(2, true).switch(3, false).message(50, &inner);
        let read = Fields::of(whole.done());
        assert_eq!((read.number(1), read.number(2), read.number(3)), (Some(6), Some(1), None));
        let notify = read.message(50).expect("a message");
        assert_eq!((notify.text(1).as_deref(), notify.number(2)), (Some("script"), Some(77)));
    }

    #[test]
    fn what_is_cut_off_is_not_there() {
        let whole = Message::default().number(1, 1).bytes(2, "long enough");
        for end in 0..whole.done().len() {
            assert_eq!(Fields::of(&whole.done()[..end]).text(2), None);
        }
        assert_eq!(Fields::of(&[0xff; 20]).number(1), None);
    }
}

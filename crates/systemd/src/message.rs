//! Messages: D-Bus Specification, Message Format.

use crate::Value;
use crate::wire::{Reader, Writer};

/// The first part of every message, up to and with the length of the header fields.
pub(crate) const FIXED: usize = 16;
/// More than this is not for us (the specification allows 128 MiB).
const MOST: usize = 4 << 20;

const CALL: u8 = 1;
const RETURN: u8 = 2;
const ERROR: u8 = 3;
const SIGNAL: u8 = 4;
const ENDIAN: u8 = if cfg!(target_endian = "little") { b'l' } else { b'B' };

/// A method to call.
pub(crate) struct Call<'a> {
    pub(crate) destination: &'a str,
    pub(crate) path: &'a str,
    pub(crate) interface: &'a str,
    pub(crate) member: &'a str,
    pub(crate) body: &'a [Value],
}

impl Call<'_> {
    /// The message.
    pub(crate) fn bytes(&self, serial: u32) -> Vec<u8> {
        let mut body = Writer::default();
        self.body.iter().for_each(|v| body.value(v));
        let signature: String = self.body.iter().map(Value::signature).collect();
        let mut fields = vec![
            (1, Value::Path(self.path.into())),
            (2, Value::str(self.interface)),
            (3, Value::str(self.member)),
        ];
        if !self.destination.is_empty() {
            fields.push((6, Value::str(self.destination)));
        }
        if !signature.is_empty() {
            fields.push((8, Value::Signature(signature)));
        }
        let field = |(code, value)| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
        let mut out = Writer(vec![ENDIAN, CALL, 0, 1]);
        out.u32(body.0.len() as u32);
        out.u32(serial);
        out.value(&Value::Array("(yv)".into(), fields.into_iter().map(field).collect()));
        out.align(8);
        out.0.extend(body.0);
        out.0
    }
}

/// What came in.
#[derive(Debug)]
pub(crate) enum Message {
    /// The answer to the call of this serial.
    Return(u32, Vec<Value>),
    /// The refusal of the call of this serial: error name, message.
    Error(u32, String, String),
    /// A signal: member, body.
    Signal(String, Vec<Value>),
    /// What is of no use here.
    Other,
}

/// The length of the whole message, by its fixed part. `None` when that is no message for this machine.
pub(crate) fn length(fixed: &[u8; FIXED]) -> Option<usize> {
    if fixed[0] != ENDIAN || fixed[3] != 1 {
        return None;
    }
    let at = |i: usize| u32::from_ne_bytes([fixed[i], fixed[i + 1], fixed[i + 2], fixed[i + 3]]) as usize;
    let whole = FIXED.checked_add(at(12))?.checked_next_multiple_of(8)?.checked_add(at(4))?;
    (whole <= MOST).then_some(whole)
}

/// Reads a whole message.
pub(crate) fn parse(bytes: &[u8]) -> Option<Message> {
    let kind = *bytes.get(1)?;
    let mut reader = Reader::new(bytes);
    let mut head = reader.values("yyyyuua(yv)")?;
    reader.align(8)?;
    let Some(Value::Array(_, fields)) = head.pop() else { return None };
    let field = |code: u8| {
        fields.iter().find_map(|f| match f {
            Value::Struct(parts) if parts.first() == Some(&Value::Byte(code)) => parts.get(1),
            _ => None,
        })
    };
    let text = |code| field(code).and_then(Value::text).unwrap_or_default().to_owned();
    let answers = match field(5) {
        Some(Value::Variant(inner)) => match **inner {
            Value::U32(n) => n,
            _ => return None,
        },
        _ => 0,
    };
    let body = Reader::new(bytes.get(reader.at()..)?).values(&text(8))?;
    Some(match kind {
        RETURN => Message::Return(answers, body),
        ERROR => {
            let words = body.first().and_then(Value::text).unwrap_or_default().to_owned();
            Message::Error(answers, text(4), words)
        }
        SIGNAL => Message::Signal(text(3), body),
        _ => Message::Other,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A method return as a bus would send it.
    fn answer(kind: u8, fields: Vec<(u8, Value)>, body: &[Value]) -> Vec<u8> {
        let mut inner = Writer::default();
        body.iter().for_each(|v| inner.value(v));
        let mut out = Writer(vec![ENDIAN, kind, 0, 1]);
        out.u32(inner.0.len() as u32);
        out.u32(77);
        let field = |(code, value)| Value::Struct(vec![Value::Byte(code), Value::Variant(Box::new(value))]);
        out.value(&Value::Array("(yv)".into(), fields.into_iter().map(field).collect()));
        out.align(8);
        out.0.extend(inner.0);
        out.0
    }

    #[test]
    fn a_call_knows_its_own_length() {
        let call =
            Call { destination: "a.b", path: "/p", interface: "i.f", member: "M", body: &[Value::str("x")] };
        let bytes = call.bytes(5);
        let fixed: [u8; FIXED] = bytes[..FIXED].try_into().expect("long enough");
        assert_eq!(length(&fixed), Some(bytes.len()));
        assert!(matches!(parse(&bytes), Some(Message::Other)));
    }

    #[test]
    fn answers_errors_and_signals_are_told_apart() {
        let bytes = answer(
            RETURN,
            vec![(5, Value::U32(9)), (8, Value::Signature("o".into()))],
            &[Value::Path("/j".into())],
        );
        assert!(
            matches!(parse(&bytes), Some(Message::Return(9, body)) if body == [Value::Path("/j".into())])
        );
        let fields = vec![(4, Value::str("a.Bad")), (5, Value::U32(9)), (8, Value::Signature("s".into()))];
        let bytes = answer(ERROR, fields, &[Value::str("why")]);
        assert!(matches!(parse(&bytes), Some(Message::Error(9, n, w)) if n == "a.Bad" && w == "why"));
        let bytes = answer(
            SIGNAL,
            vec![(3, Value::str("JobRemoved")), (8, Value::Signature("u".into()))],
            &[Value::U32(1)],
        );
        assert!(matches!(parse(&bytes), Some(Message::Signal(m, _)) if m == "JobRemoved"));
    }

    #[test]
    fn rubbish_is_no_message() {
        assert_eq!(length(&[0; FIXED]), None);
        let mut fixed = [0xff; FIXED];
        (fixed[0], fixed[3]) = (ENDIAN, 1);
        assert_eq!(length(&fixed), None);
        assert!(parse(&[ENDIAN, 2, 0, 1, 9, 9]).is_none());
    }
}

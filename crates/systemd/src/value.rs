//! Values as D-Bus types them: D-Bus Specification, Type System.

/// A value with its type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `y`
    Byte(u8),
    /// `b`
    Bool(bool),
    /// `n`
    I16(i16),
    /// `q`
    U16(u16),
    /// `i`
    I32(i32),
    /// `u`
    U32(u32),
    /// `x`
    I64(i64),
    /// `t`
    U64(u64),
    /// `d`
    Double(f64),
    /// `s`
    Str(String),
    /// `o`
    Path(String),
    /// `g`
    Signature(String),
    /// `a…`: the type of the elements, the elements.
    Array(String, Vec<Value>),
    /// `(…)`
    Struct(Vec<Value>),
    /// `v`
    Variant(Box<Value>),
}

/// A property of a unit, with systemd's name for it.
pub type Property = (String, Value);

impl Value {
    /// A string.
    pub fn str(text: impl Into<String>) -> Value {
        Value::Str(text.into())
    }

    /// An array of bytes.
    pub fn bytes(bytes: &[u8]) -> Value {
        Value::Array("y".into(), bytes.iter().copied().map(Value::Byte).collect())
    }

    /// An array of strings.
    pub fn strings<T: Into<String>>(list: impl IntoIterator<Item = T>) -> Value {
        Value::Array("s".into(), list.into_iter().map(Value::str).collect())
    }

    /// Properties as method calls take them: `a(sv)`.
    pub(crate) fn properties(list: &[Property]) -> Value {
        let one = |(name, value): &Property| {
            Value::Struct(vec![Value::str(name), Value::Variant(Box::new(value.clone()))])
        };
        Value::Array("(sv)".into(), list.iter().map(one).collect())
    }

    /// The type: D-Bus Specification, Summary of types.
    pub fn signature(&self) -> String {
        let one = |c: &str| c.to_owned();
        match self {
            Value::Byte(_) => one("y"),
            Value::Bool(_) => one("b"),
            Value::I16(_) => one("n"),
            Value::U16(_) => one("q"),
            Value::I32(_) => one("i"),
            Value::U32(_) => one("u"),
            Value::I64(_) => one("x"),
            Value::U64(_) => one("t"),
            Value::Double(_) => one("d"),
            Value::Str(_) => one("s"),
            Value::Path(_) => one("o"),
            Value::Signature(_) => one("g"),
            Value::Array(element, _) => format!("a{element}"),
            Value::Struct(fields) => format!("({})", fields.iter().map(Value::signature).collect::<String>()),
            Value::Variant(_) => one("v"),
        }
    }

    /// The text of a string, path or signature.
    pub fn text(&self) -> Option<&str> {
        match self {
            Value::Str(t) | Value::Path(t) | Value::Signature(t) => Some(t),
            Value::Variant(inner) => inner.text(),
            _ => None,
        }
    }
}

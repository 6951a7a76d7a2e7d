//! What every test is written with: the host's facts, a bundle, a container that is always removed, and the eyes
//! that look at it from outside. No test and no expectation belongs here.

pub(crate) mod bundle;
pub(crate) mod container;
pub(crate) mod context;
pub(crate) mod host;
pub(crate) mod image;
pub(crate) mod look;
pub(crate) mod rootfs;
pub(crate) mod socket;
pub(crate) mod test;
pub(crate) mod trace;

pub(crate) use bundle::Bundle;
pub(crate) use container::{Container, Output};
pub(crate) use context::Ctx;
pub(crate) use image::Layout;
pub(crate) use test::{Need, Test, tests};

/// A failed test's reason, or any error on the way, with the words around it.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
/// What helpers return.
pub(crate) type Result<T = ()> = std::result::Result<T, Error>;

/// Fails the test with a sentence unless the condition holds.
macro_rules! check {
    ($condition:expr, $($sentence:tt)+) => {
        if !$condition {
            return Err(format!("{}:{}: {}", file!(), line!(), format!($($sentence)+)).into());
        }
    };
}

/// Fails the test unless both sides are equal; the sentence says what was compared.
macro_rules! check_eq {
    ($got:expr, $want:expr, $($sentence:tt)+) => {{
        // A match keeps temporaries alive until both have been looked at.
        match (&$got, &$want) {
            (got, want) => {
                if got != want {
                    let what = format!($($sentence)+);
                    return Err(format!("{}:{}: {what}: got {got:?}, want {want:?}", file!(), line!()).into());
                }
            }
        }
    }};
}

pub(crate) use {check, check_eq};

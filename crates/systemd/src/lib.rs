#![forbid(unsafe_code)]
//! systemd as the one who makes control groups: transient scopes over D-Bus. org.freedesktop.systemd1(5).
//!
//! Written here instead of using a D-Bus crate: zbus brings an asynchronous runtime, threads and some megabytes, dbus
//! links libdbus; a container needs five method calls and one signal, one after the other, with a deadline. What is here
//! is the D-Bus Specification's marshalling (`value`, `wire`, `message`), a blocking connection (`connection`), the calls
//! (`manager`), the text form of values that annotations use (`gvariant`), and unit names (`unit`).

mod address;
mod connection;
mod error;
pub mod gvariant;
mod manager;
mod message;
pub mod unit;
mod value;
mod wire;

pub use error::{Error, Result};
pub use manager::{Bus, Manager};
pub use value::{Property, Value};

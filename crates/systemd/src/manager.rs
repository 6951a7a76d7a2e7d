//! The calls: org.freedesktop.systemd1(5), Manager object.

use crate::address::{self, Socket};
use crate::connection::{self, Connection};
use crate::message::Call;
use crate::{Error, Property, Result, Value};

const NAME: &str = "org.freedesktop.systemd1";
const PATH: &str = "/org/freedesktop/systemd1";
const MANAGER: &str = "org.freedesktop.systemd1.Manager";

/// Whose systemd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bus {
    /// The machine's.
    System,
    /// That of the user with this id, as the host counts.
    User(u32),
}

/// A connection to a systemd.
pub struct Manager {
    connection: Connection,
    /// The name to send to; a direct connection has none.
    destination: &'static str,
}

impl Manager {
    /// Connects. The machine's systemd is also reached without a D-Bus daemon, by its private socket, as root.
    /// Errors: no bus, or it does not let this user in.
    pub fn connect(bus: Bus) -> Result<Manager> {
        let sockets = match bus {
            Bus::System => address::system(),
            Bus::User(uid) => address::user(uid),
        };
        match connection::open(&sockets) {
            Ok(connection) => Manager { connection, destination: NAME }.greet(),
            Err(no @ Error::NoBus(_)) if bus == Bus::System => {
                let private = [Socket::Path("/run/systemd/private".into())];
                let connection = connection::open(&private).map_err(|_| no)?;
                Ok(Manager { connection, destination: "" })
            }
            Err(e) => Err(e),
        }
    }

    /// Every connection to a bus begins with Hello. JobRemoved comes to whoever started the job, if its connection asked.
    fn greet(mut self) -> Result<Manager> {
        let rule = format!("type='signal',interface='{MANAGER}',member='JobRemoved',path='{PATH}'");
        for (member, body) in [("Hello", vec![]), ("AddMatch", vec![Value::Str(rule)])] {
            let call = Call {
                destination: "org.freedesktop.DBus",
                path: "/org/freedesktop/DBus",
                interface: "org.freedesktop.DBus",
                member,
                body: &body,
            };
            self.connection.call(&call, member)?;
        }
        Ok(self)
    }

    fn call(&mut self, member: &str, body: &[Value], what: &str) -> Result<Vec<Value>> {
        let call = Call { destination: self.destination, path: PATH, interface: MANAGER, member, body };
        self.connection.call(&call, what)
    }

    /// A property of the manager that is a string, such as `Version` or `ControlGroup`.
    pub fn property(&mut self, name: &str) -> Result<String> {
        let value = self.get(PATH, MANAGER, name)?;
        let text = value.text().map(str::to_owned);
        text.ok_or_else(|| Error::Broken(format!("{name} is not a string")))
    }

    /// These properties of a scope, as they are.
    pub fn scope_properties(&mut self, unit: &str, names: &[&str]) -> Result<Vec<Property>> {
        let answer = self.call("GetUnit", &[Value::str(unit)], &format!("looking for {unit}"))?;
        let Some(Value::Path(path)) = answer.first() else {
            return Err(Error::Broken(format!("{unit} has no object path")));
        };
        let scope = "org.freedesktop.systemd1.Scope";
        names.iter().map(|name| Ok(((*name).to_owned(), self.get(path, scope, name)?))).collect()
    }

    fn get(&mut self, path: &str, interface: &str, name: &str) -> Result<Value> {
        let call = Call {
            destination: self.destination,
            path,
            interface: "org.freedesktop.DBus.Properties",
            member: "Get",
            body: &[Value::str(interface), Value::str(name)],
        };
        let what = format!("the property {name}");
        let first = self.connection.call(&call, &what)?.into_iter().next();
        match first {
            Some(Value::Variant(value)) => Ok(*value),
            Some(value) => Ok(value),
            None => Err(Error::Broken(format!("{what}: no answer"))),
        }
    }

    /// Makes a transient unit with these properties and waits until it is there. One of that name that failed earlier is
    /// cleared away first.
    /// Errors: systemd's refusal (`UnitExists` when one of that name is active), a job that did not end in "done".
    pub fn start_transient(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        match self.start_once(unit, properties) {
            Err(e) if e.is("UnitExists") => {
                self.reset_failed(unit)?;
                self.start_once(unit, properties)
            }
            other => other,
        }
    }

    fn start_once(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        let what = format!("starting {unit}");
        let body = [
            Value::str(unit),
            Value::str("replace"),
            Value::properties(properties),
            Value::Array("(sa(sv))".into(), Vec::new()),
        ];
        let job = self.call("StartTransientUnit", &body, &what)?;
        let ended = self.job(&job, &what).and_then(|result| match result.as_str() {
            "done" => Ok(()),
            _ => Err(Error::Job(unit.into(), result)),
        });
        ended.inspect_err(|_| {
            let _ = self.reset_failed(unit);
        })
    }

    /// Waits for the end of a job: its result.
    fn job(&mut self, answer: &[Value], what: &str) -> Result<String> {
        let job = answer.first().cloned().ok_or_else(|| Error::Broken(format!("{what}: no job")))?;
        self.connection.signal(what, |member, body| match (member, body) {
            ("JobRemoved", [_, path, _, result]) if *path == job => result.text().map(str::to_owned),
            _ => None,
        })
    }

    /// Stops a unit, waits until it is stopped, and clears away that it failed, if so. One that does not exist is fine.
    pub fn stop(&mut self, unit: &str) -> Result<()> {
        let what = format!("stopping {unit}");
        match self.call("StopUnit", &[Value::str(unit), Value::str("replace")], &what) {
            Ok(job) => self.job(&job, &what).map(drop)?,
            Err(e) if e.is("NoSuchUnit") => return Ok(()),
            Err(e) => return Err(e),
        }
        self.reset_failed(unit)
    }

    /// Forgets that a unit failed, so that systemd drops it. One that does not exist is fine.
    pub fn reset_failed(&mut self, unit: &str) -> Result<()> {
        match self.call("ResetFailedUnit", &[Value::str(unit)], &format!("resetting {unit}")) {
            Err(e) if e.is("NoSuchUnit") => Ok(()),
            other => other.map(drop),
        }
    }

    /// Changes properties of a unit, until the next boot.
    pub fn set_properties(&mut self, unit: &str, properties: &[Property]) -> Result<()> {
        let body = [Value::str(unit), Value::Bool(true), Value::properties(properties)];
        self.call("SetUnitProperties", &body, &format!("setting properties of {unit}")).map(drop)
    }

    /// Moves processes into the control group of a unit, or one `below` it (a path from there, with a leading slash, or empty):
    /// systemd may, where this process may not.
    pub fn attach(&mut self, unit: &str, below: &str, pids: &[i32]) -> Result<()> {
        let list = pids.iter().map(|p| Value::U32(*p as u32)).collect();
        let body = [Value::str(unit), Value::str(below), Value::Array("u".into(), list)];
        self.call("AttachProcessesToUnit", &body, &format!("moving processes into {unit}")).map(drop)
    }
}

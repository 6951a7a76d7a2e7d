//! How the command line is read: what is the same for all commands, and the words for what cannot be read, in the form
//! that callers look for (engines probe for an option by its refusal).

use crate::cli::{Command, Global, Ready, commands};
use crate::{image, lifecycle, log};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgAction, Args, FromArgMatches};
use coracle_plan::near::nearest;
use std::ffi::OsString;

#[cfg(test)]
mod manual;

/// runc's layout: its name and purpose first.
const HELP: &str = "NAME:\n   {name} - {about}\n\nUSAGE:\n   {usage}\n\n{all-args}\n";

/// What an unknown command ends with, as with runc.
const UNKNOWN_COMMAND: u8 = 3;

/// The name that this program was called by.
pub(crate) fn name() -> String {
    let path = std::env::args_os().next().map(std::path::PathBuf::from).unwrap_or_default();
    path.file_name().map_or_else(|| "coracle".into(), |name| name.to_string_lossy().into_owned())
}

/// What may be written, with these commands.
fn grammar(own: &str, commands: &[Command]) -> clap::Command {
    let every = |c: clap::Command| c.help_template(HELP).args_override_self(true).mut_args(switch);
    let one = |c: &Command| {
        let whole = format!("{own} {}", c.name);
        every((c.takes)(clap::Command::new(c.name))).display_name(whole)
    };
    let root = every(Global::augment_args(clap::Command::new("coracle")));
    let root = root.about("Open Container Initiative runtime").max_term_width(100).disable_version_flag(true);
    root.display_name(own).bin_name(own).subcommands(commands.iter().map(one))
}

/// A switch also takes `=true` and `=false`, as with Go's flag packages.
fn switch(arg: clap::Arg) -> clap::Arg {
    if !matches!(arg.get_action(), ArgAction::SetTrue) {
        return arg;
    }
    let arg = arg.action(ArgAction::Set).value_parser(clap::value_parser!(bool)).value_name("BOOL");
    let arg = arg.num_args(0..=1).require_equals(true).default_missing_value("true").default_value("false");
    arg.hide_default_value(true).hide_possible_values(true)
}

/// Go's flag packages take a long option with one dash too; containerd passes one so, with `restore` alone.
fn words() -> Vec<OsString> {
    let words = from_image(std::env::args_os().collect());
    if !words.iter().any(|w| w == "restore") {
        return words;
    }
    words.into_iter().map(|w| if w == "-no-subreaper" { "--no-subreaper".into() } else { w }).collect()
}

/// Where the command stands, behind the options that are for all.
fn command_at(words: &[OsString]) -> usize {
    const WITH_VALUE: [&str; 7] =
        ["--root", "--log", "--log-format", "--log-level", "--rootless", "--criu", "--cgroup-manager"];
    let mut at = 1;
    while words.get(at).is_some_and(|w| w.as_encoded_bytes().starts_with(b"-")) {
        at += if WITH_VALUE.iter().any(|o| words[at] == *o) { 2 } else { 1 };
    }
    at.min(words.len())
}

/// `run --image` has options of its own: it is the command run-image.
fn from_image(mut words: Vec<OsString>) -> Vec<OsString> {
    let at = command_at(&words);
    let names_image = |w: &OsString| w == "--image" || w.as_encoded_bytes().starts_with(b"--image=");
    let own = words.iter().skip(at + 1).take_while(|w| *w != "--").any(names_image);
    if own && words[at] == "run" {
        words[at] = "run-image".into();
    }
    words
}

/// Reads the command line. Help, and what cannot be read, is printed, and ends the command.
pub(crate) fn parse() -> Result<(Global, Option<Ready>), u8> {
    let words = words();
    let commands = commands();
    let asked = words.get(command_at(&words)).and_then(|word| commands.iter().find(|c| *word == c.name));
    // Help and refusals may speak of all of them.
    match asked.map(|one| read(&words, std::slice::from_ref(one))) {
        Some(Ok(read)) => Ok(read),
        _ => read(&words, &commands).map_err(|e| refuse(&e, &words, &commands)),
    }
}

fn read(words: &[OsString], commands: &[Command]) -> Result<(Global, Option<Ready>), clap::Error> {
    let matches = grammar(&name(), commands).try_get_matches_from(words)?;
    let given =
        matches.subcommand().and_then(|(name, own)| Some((commands.iter().find(|c| c.name == name)?, own)));
    let ready = given.map(|(command, own)| (command.read)(own)).transpose()?;
    Ok((Global::from_arg_matches(&matches)?, ready))
}

fn refuse(error: &clap::Error, words: &[OsString], commands: &[Command]) -> u8 {
    if !error.use_stderr() {
        let _ = error.print();
        return 0;
    }
    log::error(&readable(words), &format!("{}{}", sentence(error), hint(error, words, commands)));
    match error.kind() {
        ErrorKind::InvalidSubcommand => UNKNOWN_COMMAND,
        _ => 1,
    }
}

/// The log that was asked for, if the rest cannot be read: it must have the reason.
fn readable(words: &[OsString]) -> Global {
    let before: Vec<&str> = words[..command_at(words)].iter().filter_map(|w| w.to_str()).collect();
    let value = |option: &str| {
        let at = before
            .iter()
            .rposition(|w| w.strip_prefix(option).is_some_and(|w| w.is_empty() || w.starts_with('=')))?;
        before[at]
            .split_once('=')
            .map_or_else(|| before.get(at + 1).copied(), |(_, v)| Some(v))
            .map(str::to_owned)
    };
    Global::of_log(value("--log"), value("--log-format").unwrap_or_default())
}

fn sentence(error: &clap::Error) -> String {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.split(' ').next().unwrap_or_default(),
        _ => "",
    };
    match error.kind() {
        ErrorKind::UnknownArgument if !word(ContextKind::InvalidArg).starts_with('-') => {
            format!(
                "unexpected argument: {}; --help after the command lists what it takes",
                word(ContextKind::InvalidArg)
            )
        }
        ErrorKind::UnknownArgument => {
            format!("flag provided but not defined: {}", word(ContextKind::InvalidArg))
        }
        ErrorKind::InvalidSubcommand => {
            format!("No help topic for '{}'", word(ContextKind::InvalidSubcommand))
        }
        ErrorKind::InvalidValue if word(ContextKind::InvalidValue).is_empty() => {
            format!("flag needs an argument: {}", word(ContextKind::InvalidArg))
        }
        _ => plain(&error.to_string()),
    }
}

/// What may have been meant, and where it stands.
fn hint(error: &clap::Error, words: &[OsString], commands: &[Command]) -> String {
    let given = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => text.as_str(),
        _ => "",
    };
    let own = name();
    let asked = words.get(command_at(words)).and_then(|word| commands.iter().find(|c| *word == c.name));
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let names: Vec<&str> = commands.iter().map(|c| c.name).collect();
            match nearest(given(ContextKind::InvalidSubcommand), &names) {
                Some(name) => format!("; did you mean {name}?"),
                None => format!("; {own} --help lists the commands"),
            }
        }
        ErrorKind::MissingRequiredArgument => {
            let text = error.to_string();
            let usage = text.lines().find_map(|line| line.trim().strip_prefix("Usage: "));
            usage.map_or(String::new(), |usage| format!("; usage: {usage}"))
        }
        ErrorKind::UnknownArgument if given(ContextKind::InvalidArg).starts_with('-') => {
            let option = given(ContextKind::InvalidArg);
            match asked {
                Some(c) if c.name == "run-image" => format!("; {}", image::instead(option)),
                Some(c) => format!("; {}", instead(option, c, words)),
                None => format!(
                    "; {}",
                    near(option, &longs(Global::augment_args(clap::Command::new("coracle"))), &own)
                ),
            }
        }
        _ => String::new(),
    }
}

/// The same of an option that a command does not have.
fn instead(option: &str, command: &Command, words: &[OsString]) -> String {
    let (own, name) = (name(), command.name);
    let is_signal = |word: &&str| word.starts_with(option) && lifecycle::number(&word[1..]).is_ok();
    if let Some(word) = words.iter().filter_map(|w| w.to_str()).find(is_signal).filter(|_| name == "kill") {
        return format!("write the signal without a dash: {own} kill ID {}", &word[1..]);
    }
    if longs(Global::augment_args(clap::Command::new("coracle"))).iter().any(|long| long == option) {
        return format!("it stands before the command: {own} {option} … {name}");
    }
    near(option, &longs((command.takes)(clap::Command::new(name))), &format!("{own} {name}"))
}

fn longs(grammar: clap::Command) -> Vec<String> {
    grammar.get_arguments().filter_map(|a| a.get_long()).map(|long| format!("--{long}")).collect()
}

fn near(option: &str, all: &[String], command: &str) -> String {
    match nearest(option, &all.iter().map(String::as_str).collect::<Vec<_>>()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("{command} --help lists the options"),
    }
}

/// clap's own words on one line, without its "error: " and the hint to --help.
fn plain(text: &str) -> String {
    let lines =
        text.lines().map(str::trim).take_while(|l| !l.starts_with("Usage:") && !l.starts_with("For more"));
    let line = lines.filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ");
    line.strip_prefix("error: ").unwrap_or(&line).to_owned()
}

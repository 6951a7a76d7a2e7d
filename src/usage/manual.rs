//! The manual (docs/man) is written from the command line itself, so that it says what that says. `make manual` writes it
//! anew; without, it is compared.

use super::grammar;
use crate::cli::commands;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};
use std::fs;
use std::path::Path;

/// What the words of the command line do not say.
enum Part {
    Text(&'static str),
    Entry(&'static str, &'static str),
    Example(&'static str),
}

use Part::{Entry, Example, Text};

/// Page, section, and what stands in it.
const MORE: &[(&str, &str, &[Part])] = &[
    (
        "coracle",
        "EXIT STATUS",
        &[
            Entry("0", "It is done."),
            Entry(
                "1",
                "It could not be done; the last line of the log says what, to what, why, and what helps.",
            ),
            Entry("3", "There is no such command."),
            Text(
                "run and exec end with the program's: its exit code, or 128 and the number of the signal that killed it.",
            ),
            Text("exec ends with 255 where it fails itself."),
        ],
    ),
    (
        "coracle",
        "FILES",
        &[
            Entry(
                "/run/coracle",
                "What is known of root's containers, a directory each, until they are deleted.",
            ),
            Entry("$XDG_RUNTIME_DIR/coracle", "The same of a user's."),
            Entry(
                "/var/lib/coracle, $XDG_DATA_HOME/coracle",
                "Images and their layers: root's and a user's.",
            ),
        ],
    ),
    (
        "coracle",
        "ENVIRONMENT",
        &[
            Entry("XDG_RUNTIME_DIR", "Where a user's containers are kept, unless --root says it."),
            Entry("CORACLE_STORE", "Where images are kept, unless --store says it."),
            Entry("NOTIFY_SOCKET", "run and start pass on to it that the program is ready; sd_notify(3)."),
            Entry(
                "LISTEN_FDS",
                "Descriptors to hand to the program beyond those of --preserve-fds; sd_listen_fds(3).",
            ),
        ],
    ),
    (
        "coracle",
        "EXAMPLES",
        &[
            Text("A bundle, made of an image, and run:"),
            Example("coracle unpack busybox.tar bundle\ncoracle run --bundle bundle first"),
            Text("The same in the three steps that engines take:"),
            Example(
                "coracle create --bundle bundle second\ncoracle start second\ncoracle delete --force second",
            ),
            Text("An image, run in one step:"),
            Example("coracle run --image docker.io/library/busybox -it -- sh"),
        ],
    ),
    (
        "coracle-plan",
        "EXAMPLES",
        &[
            Text("All mistakes of a config.json, each with its place in it, or what create would do:"),
            Example("coracle plan --bundle bundle"),
        ],
    ),
    (
        "coracle-exec",
        "EXAMPLES",
        &[
            Text(
                "A shell on this terminal, and a program described by a file with the process object of config.json:",
            ),
            Example(
                "coracle exec --tty first sh\ncoracle exec --process process.json --detach --pid-file pid first",
            ),
        ],
    ),
    (
        "coracle-update",
        "EXAMPLES",
        &[Example(
            "coracle update --memory 512M --pids-limit 100 first\necho '{\"cpu\":{\"quota\":50000,\"period\":100000}}' | coracle update --resources - first",
        )],
    ),
    (
        "coracle-checkpoint",
        "EXAMPLES",
        &[Example(
            "coracle checkpoint --image-path pictures first\ncoracle restore --image-path pictures --bundle bundle --detach first",
        )],
    ),
    (
        "coracle-run-image",
        "EXAMPLES",
        &[Example(
            "coracle run --image ./busybox.tar --rm -it -- sh\ncoracle run --image docker.io/library/redis:7 --name cache --net pasta -p 6379:6379 -v data:/data -d",
        )],
    ),
];

/// One part, at the end of a page.
fn add(roff: &mut Roff, part: &Part) {
    match part {
        Text(text) => roff.control("PP", []).text([roman(*text)]),
        Entry(word, text) => roff.control("TP", []).text([bold(*word)]).text([roman(*text)]),
        Example(lines) => {
            let roff = roff.control("PP", []).control("EX", []);
            lines.lines().fold(roff, |roff, line| roff.text([roman(line)])).control("EE", [])
        }
    };
}

fn page(command: &clap::Command, name: &str, others: &str) -> Vec<u8> {
    let mut page = Vec::new();
    // mandb(8) takes no name with a space in it.
    let man = Man::new(command.clone().display_name(name)).title(name).section("8").source("coracle");
    man.render(&mut page).expect("writing into memory");
    let mut roff = Roff::default();
    for (_, section, parts) in MORE.iter().filter(|(page, ..)| *page == name) {
        roff.control("SH", [*section]);
        parts.iter().for_each(|part| add(&mut roff, part));
    }
    roff.control("SH", ["SEE ALSO"]).text([roman(others)]);
    roff.to_writer(&mut page).expect("writing into memory");
    page
}

/// Every page, by its name.
fn pages() -> Vec<(String, Vec<u8>)> {
    let all = commands();
    let mut root = grammar("coracle", &all);
    root.build();
    let names: Vec<_> = all.iter().map(|c| format!("coracle-{}(8)", c.name)).collect();
    let mut pages = vec![("coracle".to_owned(), page(&root, "coracle", &names.join(", ")))];
    for command in root.get_subcommands().filter(|c| c.get_name() != "help") {
        let name = format!("coracle-{}", command.get_name());
        let page = page(command, &name, "coracle(8)");
        pages.push((name, page));
    }
    pages
}

#[test]
fn the_manual_says_what_the_command_line_says() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/man");
    for (name, page) in pages() {
        let path = directory.join(format!("{name}.8"));
        if std::env::var_os("MANUAL").is_some_and(|word| word == "write") {
            fs::create_dir_all(&directory).expect("docs/man");
            fs::write(&path, &page).expect("a page that can be written");
        }
        assert!(fs::read(&path).unwrap_or_default() == page, "{} is old: make manual", path.display());
    }
}

#[test]
fn every_addition_has_its_page() {
    let pages = pages();
    for (page, section, _) in MORE {
        assert!(pages.iter().any(|(name, _)| name == page), "{page}, {section}");
    }
}

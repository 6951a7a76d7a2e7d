//! docs/fields.md is complete: every member of the specification's JSON schema (crates/plan/src/config/schema.txt) has a row, every row names a test,
//! and every test that is named exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// What stands between backticks.
fn spans(cell: &str) -> Vec<&str> {
    cell.split('`').skip(1).step_by(2).collect()
}

/// The cells of each row of the tables, without their heads.
fn rows(text: &str) -> Vec<Vec<&str>> {
    let rows = text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| field"));
    rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

fn schema(text: &str) -> BTreeSet<&str> {
    text.lines().filter(|line| !line.starts_with('#')).collect()
}

/// Whether a path of a row, where `*` stands for any one name, is this path of the schema.
fn fits(pattern: &str, path: &str) -> bool {
    let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), path.split('.').collect());
    let one = |(p, name): (&&str, &&str)| {
        p == name || (*p == "*" && !name.ends_with("[]")) || (*p == "*[]" && name.ends_with("[]"))
    };
    pattern.len() == path.len() && pattern.iter().zip(&path).all(one)
}

/// The members of the schema that a cell names: the first word of each list in full (or from `linux` on), the others beside it.
fn named<'a>(cell: &str, schema: &BTreeSet<&'a str>) -> BTreeSet<&'a str> {
    let mut found = BTreeSet::new();
    for list in cell.split(';') {
        let mut beside = String::new();
        for span in spans(list) {
            for full in [span.to_owned(), format!("linux.{span}"), format!("{beside}{span}")] {
                let fitting: Vec<&str> = schema.iter().filter(|path| fits(&full, path)).copied().collect();
                if !fitting.is_empty() {
                    if beside.is_empty() {
                        beside =
                            full.rsplit_once('.').map_or(String::new(), |(parent, _)| format!("{parent}."));
                    }
                    found.extend(fitting);
                    break;
                }
            }
        }
    }
    found
}

#[test]
fn every_member_of_the_schema_has_a_row() {
    let (text, document) = (read("crates/plan/src/config/schema.txt"), read("docs/fields.md"));
    let schema = schema(&text);
    assert!(schema.len() > 200, "members of the schema: {}", schema.len());
    let named: BTreeSet<&str> = rows(&document).iter().flat_map(|row| named(row[0], &schema)).collect();
    let missing: Vec<_> = schema.difference(&named).collect();
    assert!(missing.is_empty(), "docs/fields.md has no row for {missing:#?}");
}

/// The tests that a topic's table lists, in integration/src/topics/TOPIC.rs.
fn listed(topic: &str) -> Vec<String> {
    let text = read(&format!("integration/src/topics/{topic}.rs"));
    let table = text.split("tests! {").nth(1).and_then(|rest| rest.split("\n}").next()).unwrap_or_default();
    let name = |line: &str| line.trim().split([' ', ';']).next().unwrap_or_default().to_owned();
    table.lines().map(name).collect()
}

fn exists(test: &str) -> bool {
    match (test.split_once('#'), test.split_once('/')) {
        // A unit test, whose file is short for one below crates.
        (Some((file, name)), _) => {
            let file = file
                .split_once('/')
                .map_or(String::new(), |(room, file)| format!("crates/{room}/src/{file}"));
            read(&file).contains(&format!("fn {name}()"))
        }
        (None, Some((topic, name))) => listed(topic).iter().any(|listed| listed == name),
        (None, None) => false,
    }
}

#[test]
fn every_row_names_tests_that_exist() {
    let document = read("docs/fields.md");
    for row in rows(&document) {
        assert_eq!(row.len(), 7, "cells of {row:?}");
        assert!(
            row.iter().enumerate().all(|(i, cell)| i == 2 || !cell.is_empty()),
            "an empty cell in {row:?}"
        );
        let tests = spans(row[3]);
        assert!(!tests.is_empty(), "no test in {row:?}");
        for test in tests {
            assert!(exists(test), "{test} does not exist, in {row:?}");
        }
    }
}

#[test]
fn a_test_that_is_none_is_seen() {
    assert!(!exists("lifecycle/never_written") && !exists("plan/rdt.rs#never_written"));
    assert!(exists("lifecycle/create_start_kill_delete"));
    assert!(fits("hooks.*[].path", "hooks.poststop[].path") && !fits("hooks.*[].path", "hooks.poststop"));
}

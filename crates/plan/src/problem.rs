//! What is wrong with a configuration: said once, in one form, before anything is touched.

use std::fmt;

/// One mistake.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where in config.json, such as `linux.resources.cpu.quota`; or what else, such as `container id`; empty for the file, which
    /// the caller names.
    pub at: String,
    /// What stands there and which rule it breaks.
    pub what: String,
    /// Where the rule is written, such as `config.md, Process`; empty when it is the host that cannot.
    pub section: &'static str,
    /// What the user can do.
    pub hint: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.at.is_empty() {
            write!(f, "{}: ", self.at)?;
        }
        f.write_str(&self.what)?;
        if !self.section.is_empty() {
            write!(f, " ({})", self.section)?;
        }
        if self.hint.is_empty() { Ok(()) } else { write!(f, "; {}", self.hint) }
    }
}

/// All mistakes of a configuration; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal(pub Vec<Problem>);

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.0.iter().map(Problem::to_string).collect();
        f.write_str(&lines.join("\n"))
    }
}

impl std::error::Error for Refusal {}

/// Where the checks of every topic put what they find, and the warnings about what is left out.
#[derive(Debug, Default)]
pub struct Findings {
    /// Mistakes: any one refuses the container.
    pub problems: Vec<Problem>,
    /// What the specification lets pass, but must be said.
    pub warnings: Vec<String>,
}

impl Findings {
    /// Notes a mistake.
    pub fn problem(
        &mut self,
        at: impl Into<String>,
        what: impl Into<String>,
        section: &'static str,
        hint: impl Into<String>,
    ) {
        self.problems.push(Problem { at: at.into(), what: what.into(), section, hint: hint.into() });
    }

    /// Notes a warning.
    pub fn warn(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    /// A string as the kernel takes it. A NUL within it is a mistake at `at`.
    pub fn cstring(&mut self, at: &str, text: impl Into<Vec<u8>>) -> std::ffi::CString {
        std::ffi::CString::new(text).unwrap_or_else(|_| {
            self.problem(at, "holds a NUL byte", "", "remove it");
            std::ffi::CString::default()
        })
    }
}

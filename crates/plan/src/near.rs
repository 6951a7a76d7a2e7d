//! What somebody who wrote a word may have meant by it.

/// The name that is meant, if one is near: without what stands before it (`allow`: SCMP_ACT_ALLOW), the beginning of one
/// (`net`), or with a slip or two.
pub fn nearest<'a>(word: &str, names: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase();
    let by = |meant: &dyn Fn(&str) -> bool| names.iter().find(|name| meant(&name.to_lowercase())).copied();
    if word.len() < 2 {
        return None;
    }
    let slips = |name: &&&str| slips(name, &word);
    // What all names begin with is no likeness.
    let own = word.rsplit('_').next().map_or(0, str::len);
    by(&|name| name == word || name.ends_with(&format!("_{word}")))
        .or_else(|| by(&|name| name.starts_with(&word)))
        .or_else(|| names.iter().min_by_key(slips).filter(|name| slips(name) <= own.div_ceil(4)).copied())
}

/// How many slips of the pen, of a letter or of two that changed places, lie between two words; in any case.
pub(crate) fn slips(known: &str, written: &str) -> usize {
    strsim::osa_distance(&known.to_lowercase(), &written.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn what_is_near_is_meant() {
        let names = ["network", "pid", "SCMP_ACT_ALLOW", "SCMP_ARCH_X86_64", "--bundle", "run", "run-image"];
        for (word, meant) in [
            ("net", "network"),
            ("PID", "pid"),
            ("allow", "SCMP_ACT_ALLOW"),
            ("x86_64", "SCMP_ARCH_X86_64"),
            ("SCMP_ACT_ALOW", "SCMP_ACT_ALLOW"),
            ("--bundel", "--bundle"),
            ("ruun", "run"),
        ] {
            assert_eq!(nearest(word, &names), Some(meant), "{word}");
        }
        for word in ["", "x", "moon", "--console", "SCMP_ACT_FROWN", "SCMP_ACT_SLOW"] {
            assert_eq!(nearest(word, &names), None, "{word}");
        }
    }
}

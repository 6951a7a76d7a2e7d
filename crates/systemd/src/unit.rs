//! Names of units: systemd.unit(5), systemd.slice(5).

/// Where a slice's control group is, below the manager's: a dash leads one down, `a-b.slice` lies in `a.slice`.
/// `None` when that is no name of a slice.
pub fn expand_slice(slice: &str) -> Option<String> {
    let name = slice.strip_suffix(".slice").filter(|n| !n.is_empty() && !n.contains('/'))?;
    if name == "-" {
        return Some(String::new());
    }
    let (mut path, mut prefix) = (String::new(), String::new());
    for part in name.split('-') {
        if part.is_empty() {
            return None;
        }
        path += &format!("/{prefix}{part}.slice");
        prefix += &format!("{part}-");
    }
    Some(path)
}

/// Whether this can be the name of a scope: at most 255 bytes of what systemd allows in names of units.
pub fn is_scope(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ":-_.\\@".contains(c);
    name.len() <= 255 && name.strip_suffix(".scope").is_some_and(|n| !n.is_empty() && n.chars().all(allowed))
}

/// The version in what the property `Version` says: `257.8-1~deb13u2`, `v245.4-1.fc32`.
pub fn version(text: &str) -> u32 {
    let digits: String =
        text.trim_start_matches(['v', '"']).chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dash_leads_down() {
        assert_eq!(expand_slice("system.slice").as_deref(), Some("/system.slice"));
        assert_eq!(expand_slice("a-b-c.slice").as_deref(), Some("/a.slice/a-b.slice/a-b-c.slice"));
        assert_eq!(expand_slice("-.slice").as_deref(), Some(""));
        for bad in ["", ".slice", "a", "a--b.slice", "-a.slice", "a/b.slice", "a.scope"] {
            assert_eq!(expand_slice(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn names_of_scopes() {
        assert!(is_scope("libpod-0a1b.scope") && is_scope("-x.scope"));
        for bad in [
            ".scope",
            "a/b.scope",
            "a b.scope",
            "a.slice",
            "a\n.scope",
            &format!("{}.scope", "a".repeat(250)),
        ] {
            assert!(!is_scope(bad), "{bad:?}");
        }
    }

    #[test]
    fn versions_as_distributions_write_them() {
        assert_eq!(["257.8-1~deb13u2", "v245.4-1.fc32", "\"252\"", ""].map(version), [257, 245, 252, 0]);
    }
}

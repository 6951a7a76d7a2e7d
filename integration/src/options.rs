//! The runner's command line. No policy: what the words mean is decided in `runner`.

/// What `--help` and a mistake print.
pub(crate) const USAGE: &str = "\
usage: [RUNTIME=PATH] coracle-integration [OPTIONS] [SUBSTRING...]

Runs the tests whose name (topic/test) contains one of the substrings; all without any.

  --list               print the names and needs, run nothing
  --needs              print what this machine offers of the things that tests need
  --jobs N             how many tests at a time (default: the number of processors)
  --timeout SECONDS    how long one test may take (default 180)
  --except SUBSTRING   leave out the tests whose name contains it; may be given again
  --private-cgroup2    run in a private mount namespace where /sys/fs/cgroup is one cgroup2 mount
  --tally FILE         append the three numbers of the last line to FILE";

/// The options, as given.
pub(crate) struct Options {
    pub(crate) list: bool,
    pub(crate) needs: bool,
    pub(crate) jobs: usize,
    pub(crate) timeout: u64,
    pub(crate) private_cgroup2: bool,
    pub(crate) tally: Option<String>,
    pub(crate) filters: Vec<String>,
    pub(crate) except: Vec<String>,
}

/// Reads the words after the program's name; the error is a sentence for the user.
pub(crate) fn parse(words: &[String]) -> Result<Options, String> {
    let mut options = Options {
        list: false,
        needs: false,
        jobs: std::thread::available_parallelism().map_or(1, usize::from),
        timeout: 180,
        private_cgroup2: false,
        tally: None,
        filters: Vec::new(),
        except: Vec::new(),
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.as_str() {
            "--list" => options.list = true,
            "--needs" => options.needs = true,
            "--private-cgroup2" => options.private_cgroup2 = true,
            "--jobs" => options.jobs = number(word, words.next())?,
            "--timeout" => options.timeout = number(word, words.next())?,
            "--except" => options.except.push(words.next().ok_or("--except wants a word")?.clone()),
            "--tally" => options.tally = Some(words.next().ok_or("--tally wants a file")?.clone()),
            "--help" | "-h" => return Err("the end-to-end tests".into()),
            flag if flag.starts_with('-') => return Err(format!("unknown option {flag}")),
            filter => options.filters.push(filter.into()),
        }
    }
    Ok(options)
}

fn number<T: std::str::FromStr>(flag: &str, word: Option<&String>) -> Result<T, String> {
    word.and_then(|w| w.parse().ok()).ok_or_else(|| format!("{flag} wants a number"))
}

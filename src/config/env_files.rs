//! The variables of a process: its environment, then the env files that `APP_ENV` picks. Nothing is written to the
//! process environment: changing it while threads run is unsound, and children must not inherit our secrets.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::Path;

use super::AppEnv;
use super::fault::Fault;
use super::variables;

/// Everything found, with where it was found.
#[derive(Debug, Default)]
pub(super) struct Environment {
    pub(super) vars: BTreeMap<String, String>,
    /// For each variable the file it is from, or [`PROCESS`].
    pub(super) origins: BTreeMap<String, &'static str>,
    pub(super) faults: Vec<Fault>,
    pub(super) warnings: Vec<String>,
}

const PROCESS: &str = "environment";

impl Environment {
    /// Reads the files in `dir` that are there. `process` wins over them, an earlier file over a later one.
    pub(super) fn read(dir: &Path, process: impl Iterator<Item = (OsString, OsString)>) -> Self {
        let mut found = Self::default();
        found.read_process(process);
        // A wrong value is reported by whoever reads it from the map.
        let app_env = found.vars.get("APP_ENV").and_then(|text| AppEnv::parse(text.trim()).ok());
        let app_env = app_env.unwrap_or(AppEnv::Local);
        for file in [app_env.env_file(), ".env"] {
            found.read_file(dir, file, app_env);
        }
        found
    }

    fn read_process(&mut self, process: impl Iterator<Item = (OsString, OsString)>) {
        for (name, value) in process {
            let Ok(name) = name.into_string() else { continue };
            if let Ok(value) = value.into_string() {
                self.origins.insert(name.clone(), PROCESS);
                self.vars.insert(name, value);
            } else if variables::find(&name).is_some() {
                self.faults.push(Fault {
                    subject: name,
                    given: None,
                    origin: Some(PROCESS.into()),
                    problem: "the value is not UTF-8".into(),
                    accepted: "UTF-8 text".into(),
                });
            }
        }
    }

    fn read_file(&mut self, dir: &Path, file: &'static str, app_env: AppEnv) {
        let text = match std::fs::read_to_string(dir.join(file)) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound => return,
            Err(error) => {
                self.faults.push(Fault {
                    subject: file.into(),
                    given: None,
                    origin: None,
                    problem: format!("it cannot be read: {error}"),
                    accepted: "a readable text file, or none".into(),
                });
                return;
            }
        };
        let text = text.trim_start_matches('\u{feff}');
        let mut values = BTreeMap::new();
        // Where the search for the next faulty line begins: the parser says what it stumbled over, not where.
        let mut position = 0;
        for item in dotenvy::Iter::new(text.as_bytes()) {
            match item {
                Ok((name, value)) => {
                    position = text[position..].find(&name).map_or(position, |at| position + at + name.len());
                    if values.insert(name.clone(), value).is_some() {
                        self.warnings.push(format!("{name} is set twice in {file}; the last one counts"));
                    }
                }
                Err(dotenvy::Error::LineParse(line, _)) => {
                    let at = text[position..].find(&line).map_or(position, |at| position + at);
                    self.faults.push(line_fault(file, text, at));
                    position = (at + line.len()).min(text.len());
                }
                Err(error) => self.faults.push(Fault {
                    subject: file.into(),
                    given: None,
                    origin: None,
                    problem: format!("it cannot be read: {error}"),
                    accepted: "lines of NAME=value".into(),
                }),
            }
        }
        self.check_app_env(file, &values, app_env);
        for (name, value) in values {
            if let Entry::Vacant(entry) = self.vars.entry(name) {
                self.origins.insert(entry.key().clone(), file);
                entry.insert(value);
            }
        }
    }

    /// `APP_ENV` decides which file is read, so a file cannot change it any more. One that says otherwise than what
    /// is in force would run production with local defaults.
    fn check_app_env(&mut self, file: &'static str, values: &BTreeMap<String, String>, app_env: AppEnv) {
        if values.get("APP_ENV").is_some_and(|value| !value.trim().is_empty() && value.trim() != app_env.as_str()) {
            self.faults.push(Fault {
                subject: "APP_ENV".into(),
                given: None,
                origin: Some(file.into()),
                problem: format!("the file contradicts APP_ENV={app_env}, which is in force"),
                accepted: "APP_ENV in the process environment, since it picks the file".into(),
            });
        }
    }
}

/// The fault for a line that is not `NAME=value`. It quotes the name only: the value may be a secret.
fn line_fault(file: &str, text: &str, at: usize) -> Fault {
    let number = text[..at].matches('\n').count() + 1;
    let line = text.lines().nth(number - 1).unwrap_or_default().trim_start();
    let line = line.strip_prefix("export ").unwrap_or(line);
    let name = line.split_once('=').map_or("", |(name, _)| name.trim_end());
    let is_name = !name.is_empty() && name.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'_');
    let subject = if is_name { name.to_owned() } else { format!("{file}:{number}") };
    Fault {
        origin: is_name.then(|| format!("{file}:{number}")),
        subject,
        given: None,
        problem: "the line cannot be read".into(),
        accepted: "NAME=value; a value with spaces, quotes, $, # or \\ goes in single quotes: NAME='value'".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(files: &[(&str, &str)], process: &[(&str, &str)]) -> Environment {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        Environment::read(dir.path(), process.iter().map(|(name, value)| (name.into(), value.into())))
    }

    #[test]
    fn the_process_wins_then_the_file_of_the_environment_then_env() {
        let files = [
            (".env.local", "A=local\nB=local\n"),
            (".env.production", "A=production\nB=production\n"),
            (".env", "A=common\nB=common\nC=common\n"),
        ];
        let local = read(&files, &[("A", "process")]);
        let values = |found: &Environment| [found.vars["A"].clone(), found.vars["B"].clone(), found.vars["C"].clone()];
        assert_eq!(values(&local), ["process", "local", "common"]);
        assert_eq!(local.origins["A"], "environment");
        assert_eq!(local.origins["B"], ".env.local");
        assert_eq!(local.origins["C"], ".env");
        let production = read(&files, &[("APP_ENV", "production")]);
        assert_eq!(values(&production), ["production", "production", "common"]);
        assert!(local.faults.is_empty() && local.warnings.is_empty());
    }

    #[test]
    fn no_file_is_fine_and_the_process_environment_stays_as_it_is() {
        let found = read(&[], &[]);
        assert!(found.vars.is_empty() && found.faults.is_empty());
        let found = read(&[(".env", "RYEMILL_TEST_ONLY_IN_THE_FILE=1")], &[]);
        assert_eq!(found.vars["RYEMILL_TEST_ONLY_IN_THE_FILE"], "1");
        assert!(std::env::var_os("RYEMILL_TEST_ONLY_IN_THE_FILE").is_none());
    }

    #[test]
    fn quotes_comments_exports_and_a_byte_order_mark() {
        let text = "\u{feff}A='s$c#ret \"x\"'\n# A=no\nexport B=b # comment\r\nC=\"one\\ntwo\"\nD=\nE=a=b\n";
        let found = read(&[(".env", text)], &[]);
        assert!(found.faults.is_empty(), "{:?}", found.faults);
        assert_eq!(found.vars["A"], "s$c#ret \"x\"");
        assert_eq!(found.vars["B"], "b");
        assert_eq!(found.vars["C"], "one\ntwo");
        assert_eq!(found.vars["D"], "");
        assert_eq!(found.vars["E"], "a=b");
    }

    #[test]
    fn broken_lines_are_faults_with_their_place_and_without_their_value() {
        let text =
            "A=1\nMAIL_FROM=Rye Mill <hunter22>\nB=2\nhunter22 is my password\n  export SECRET_X=hunter22 y\nC='open\n";
        let found = read(&[(".env", text)], &[]);
        let faults: Vec<String> = found.faults.iter().map(ToString::to_string).collect();
        assert_eq!(faults.len(), 4, "{faults:#?}");
        assert!(faults[0].starts_with("MAIL_FROM (.env:2): the line cannot be read; accepted: "), "{}", faults[0]);
        assert!(faults[1].starts_with(".env:4: the line cannot be read; "), "{}", faults[1]);
        assert!(faults[2].starts_with("SECRET_X (.env:5): "), "{}", faults[2]);
        assert!(faults[3].starts_with("C (.env:6): "), "{}", faults[3]);
        assert!(!faults.concat().contains("hunter22"));
        assert_eq!(found.vars.len(), 2);
    }

    #[test]
    fn an_unreadable_file_is_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(".env")).unwrap();
        std::fs::write(dir.path().join(".env.local"), b"A=\xff").unwrap();
        let found = Environment::read(dir.path(), std::iter::empty());
        let subjects: Vec<_> = found.faults.iter().map(|fault| fault.subject.as_str()).collect();
        assert_eq!(subjects, [".env.local", ".env"]);
    }

    #[test]
    fn a_value_of_the_process_that_is_not_text() {
        use std::os::unix::ffi::OsStringExt;
        let bytes = || OsString::from_vec(vec![0xff]);
        let dir = tempfile::tempdir().unwrap();
        let process = [("SECRET_X".into(), bytes()), ("OTHER".into(), bytes()), (bytes(), bytes())];
        let found = Environment::read(dir.path(), process.into_iter());
        assert_eq!(found.faults.len(), 1);
        assert_eq!(found.faults[0].to_string(), "SECRET_X (environment): the value is not UTF-8; accepted: UTF-8 text");
    }

    #[test]
    fn twice_in_a_file_is_warned_about_and_the_last_counts() {
        let found = read(&[(".env", "PORT=1\nPORT=2\n")], &[]);
        assert_eq!(found.vars["PORT"], "2");
        assert_eq!(found.warnings, ["PORT is set twice in .env; the last one counts"]);
    }

    #[test]
    fn a_file_cannot_change_the_environment() {
        assert!(read(&[(".env.local", "APP_ENV=local")], &[]).faults.is_empty());
        assert!(read(&[(".env.production", "APP_ENV=production")], &[("APP_ENV", "production")]).faults.is_empty());
        let found = read(&[(".env", "APP_ENV=production")], &[]);
        assert_eq!(
            found.faults[0].to_string(),
            "APP_ENV (.env): the file contradicts APP_ENV=local, which is in force; accepted: APP_ENV in the process \
             environment, since it picks the file"
        );
    }
}

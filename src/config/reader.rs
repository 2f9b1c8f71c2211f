//! Reads single variables from the map and collects the faults. A faulty value is replaced by its default so that
//! reading goes on and every fault is found; the configuration is refused in the end.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use crate::job::units::{format_duration, parse_duration, parse_size};

use super::AppEnv;
use super::fault::{ConfigErrors, Fault, shown};
use super::secret::mask_url;
use super::variables::{self, Preset, Secrecy};

pub(super) struct Reader<'a> {
    vars: &'a BTreeMap<String, String>,
    app_env: AppEnv,
    faults: Vec<Fault>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(vars: &'a BTreeMap<String, String>) -> Self {
        let mut reader = Self { vars, app_env: AppEnv::Local, faults: Vec::new() };
        reader.app_env = reader.value("APP_ENV", "local or production", AppEnv::parse);
        reader
    }

    pub(super) fn app_env(&self) -> AppEnv {
        self.app_env
    }

    /// The given text without the spaces around it; blank counts as unset.
    pub(super) fn given(&self, name: &str) -> Option<&'a str> {
        self.vars.get(name).map(|text| text.trim()).filter(|text| !text.is_empty())
    }

    fn preset(&self, name: &str) -> &'static str {
        match variables::find(name).map(|variable| variable.default) {
            Some(Preset::Value(text)) => text,
            Some(Preset::ByEnvironment { local, production }) => match self.app_env {
                AppEnv::Local => local,
                AppEnv::Production => production,
            },
            Some(Preset::Derived(_) | Preset::Unset) | None => unreachable!("{name} has no default to parse"),
        }
    }

    /// A variable with a default in the table.
    pub(super) fn value<T>(&mut self, name: &str, accepted: &str, parse: impl Fn(&str) -> Result<T, String>) -> T {
        self.optional(name, accepted, &parse).unwrap_or_else(|| match parse(self.preset(name)) {
            Ok(value) => value,
            Err(problem) => unreachable!("the default of {name}: {problem}"),
        })
    }

    /// A variable that may be unset, or whose default is worked out by the caller. `None` after a fault too.
    pub(super) fn optional<T>(
        &mut self,
        name: &str,
        accepted: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        match parse(self.given(name)?) {
            Ok(value) => Some(value),
            Err(problem) => {
                self.fault(name, problem, accepted);
                None
            }
        }
    }

    /// A text that may be blank on purpose, which then overrides the default.
    pub(super) fn text_or_blank(&self, name: &str) -> &'a str {
        self.vars.get(name).map_or_else(|| self.preset(name), |text| text.trim())
    }

    pub(super) fn number<T>(&mut self, name: &str, range: RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Display,
    {
        let accepted = format!("a whole number from {} to {}", range.start(), range.end());
        self.value(name, &accepted, |text| {
            if !text.bytes().all(|c| c.is_ascii_digit()) {
                return Err("it is not a whole number".into());
            }
            text.parse().ok().filter(|number| range.contains(number)).ok_or_else(|| "it is out of range".into())
        })
    }

    pub(super) fn yes_or_no(&mut self, name: &str) -> bool {
        self.value(name, "yes or no", |text| match text.to_ascii_lowercase().as_str() {
            "yes" | "true" | "on" | "1" => Ok(true),
            "no" | "false" | "off" | "0" => Ok(false),
            _ => Err("it is neither".into()),
        })
    }

    pub(super) fn duration(&mut self, name: &str, range: RangeInclusive<Duration>) -> Duration {
        let (from, to) = (format_duration(*range.start()), format_duration(*range.end()));
        self.value(name, &format!("from {from} to {to}, such as 250ms, 2s, 5m, 1h, 1d"), |text| {
            let duration = parse_duration(text).map_err(|error| error.reason)?;
            if range.contains(&duration) { Ok(duration) } else { Err("it is out of range".into()) }
        })
    }

    /// A size in bytes that is held in memory, at most 1 GiB.
    pub(super) fn size(&mut self, name: &str, at_least: usize) -> usize {
        const MOST: usize = 1 << 30;
        let accepted = format!("from {at_least} to 1GiB, such as 1048576, 512KiB, 64MiB, 1GiB");
        self.value(name, &accepted, |text| {
            let bytes = usize::try_from(parse_size(text).map_err(|error| error.reason)?).unwrap_or(usize::MAX);
            if (at_least..=MOST).contains(&bytes) { Ok(bytes) } else { Err("it is out of range".into()) }
        })
    }

    /// A size in bytes of something on disk.
    pub(super) fn disk_size(&mut self, name: &str) -> u64 {
        let accepted = "a whole number of bytes, or with a unit: 1048576, 512KiB, 64MiB, 1GiB";
        self.value(name, accepted, |text| parse_size(text).map_err(|error| error.reason))
    }

    pub(super) fn fault(&mut self, name: &str, problem: impl Into<String>, accepted: impl Into<String>) {
        let given = self.vars.get(name).map(|text| match variables::find(name).map(|variable| variable.secrecy) {
            Some(Secrecy::Open) => shown(text),
            Some(Secrecy::Url) => shown(&mask_url(text.trim())),
            Some(Secrecy::Secret) | None => "***".into(),
        });
        self.faults.push(Fault {
            subject: name.into(),
            given,
            origin: None,
            problem: problem.into(),
            accepted: accepted.into(),
        });
    }

    /// The faults, if any, in the order of the table.
    pub(super) fn into_faults(mut self) -> Option<ConfigErrors> {
        self.faults.sort_by_key(|fault| variables::position(&fault.subject));
        (!self.faults.is_empty()).then_some(ConfigErrors { faults: self.faults })
    }

    pub(super) fn has_fault(&self, name: &str) -> bool {
        self.faults.iter().any(|fault| fault.subject == name)
    }
}

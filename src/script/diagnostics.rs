//! One fault of a script, found before it runs, and its one rendering: file, line, caret, hint.

use std::fmt;

use annotate_snippets::{AnnotationKind, Element, Level, Origin, Renderer, Snippet};
use rhai::{ParseError, Position};
use serde::Serialize;

use super::habits;
use crate::job::JobError;

/// What is wrong where.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Fault {
    /// Below the jobs folder.
    pub file: String,
    /// 1-based; absent when the fault is the file's as a whole.
    pub line: Option<usize>,
    /// 1-based, in characters.
    pub column: Option<usize>,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
}

impl Fault {
    #[must_use]
    pub fn new(file: &str, at: Position, message: impl Into<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: at.line(),
            column: at.line().map(|_| at.position().unwrap_or(1)),
            message: message.into(),
            hint: None,
        }
    }

    /// What Rhai's parser says, with what helps.
    #[must_use]
    pub fn parse(file: &str, source: &str, error: &ParseError) -> Self {
        let fault = Self::new(file, error.position(), error.err_type().to_string());
        match habits::hint(source, error.position(), error.err_type()) {
            Some(hint) => fault.with_hint(hint),
            None => fault,
        }
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The error card: message, place, the line with a caret, hint. `source` is the file's text.
    #[must_use]
    pub fn card(&self, source: &str, color: bool) -> String {
        self.rendered(source, color, Level::ERROR)
    }

    /// The card of what keeps nothing from running.
    #[must_use]
    pub fn warning(&self, source: &str, color: bool) -> String {
        self.rendered(source, color, Level::WARNING)
    }

    fn rendered(&self, source: &str, color: bool, level: Level<'static>) -> String {
        let renderer = if color { Renderer::styled() } else { Renderer::plain() };
        let place: Element<'_> = match self.span(source) {
            Some(span) => {
                Snippet::source(source).path(self.file.as_str()).annotation(AnnotationKind::Primary.span(span)).into()
            }
            None => Origin::path(self.file.as_str()).into(),
        };
        let mut group = level.primary_title(self.message.as_str()).element(place);
        if let Some(hint) = &self.hint {
            group = group.element(Level::HELP.message(hint.as_str()));
        }
        renderer.render(&[group])
    }

    /// The byte range of the place: the word that starts there.
    fn span(&self, source: &str) -> Option<std::ops::Range<usize>> {
        let (line, column) = (self.line?, self.column?);
        let start: usize = source.split_inclusive('\n').take(line - 1).map(str::len).sum();
        let text = source.get(start..)?.lines().next().unwrap_or("");
        let from = text.char_indices().nth(column - 1).map_or(text.len(), |(at, _)| at);
        let word = text[from..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').map(char::len_utf8).sum();
        let one = text[from..].chars().next().map_or(0, char::len_utf8);
        Some(start + from..start + from + one.max(word))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let (Some(line), Some(column)) = (self.line, self.column) {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}

/// An error of a run, for people.
#[must_use]
pub fn error_card(error: &JobError) -> String {
    let margin = " ".repeat(error.line.map_or(1, |line| line.to_string().len()));
    let mut card = format!("error[{}]: {}", error.kind, error.message);
    let mut add = |line: String| {
        card.push('\n');
        card.push_str(&line);
    };
    match (&error.file, error.line, error.column) {
        (Some(file), Some(line), Some(column)) => add(format!("{margin}--> {file}:{line}:{column}")),
        (Some(file), ..) => add(format!("{margin}--> {file}")),
        (None, ..) => {}
    }
    if let Some(snippet) = &error.snippet {
        add(format!("{margin} |\n{snippet}"));
    }
    for frame in &error.stack {
        let line = frame.line.map_or(String::new(), |line| format!(":{line}"));
        add(format!("{margin} = in {}, called from {}{line}", frame.function, frame.file));
    }
    if let Some(hint) = &error.hint {
        add(format!("{margin} = help: {hint}"));
    }
    card
}

/// The known word nearest to what was written, as a hint; none when nothing is near.
#[must_use]
pub fn near<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let written = written.to_lowercase();
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&written, &word.to_lowercase()), word))
        // A short name is near to nearly every other.
        .filter(|(distance, word)| {
            let length = word.len().max(written.len());
            *distance <= (length / 3).max(1) && distance * 2 < length
        })
        .min()
        .map(|(_, word)| format!("did you mean `{word}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_card_shows_place_caret_and_hint() {
        let source = "const JOB = #{\n    queu: \"mail\",\n};\n";
        let fault =
            Fault::new("email.rhai", Position::new(2, 5), "unknown key `queu`").with_hint("did you mean `queue`?");
        let card = fault.card(source, false);
        assert!(card.contains("email.rhai:2:5"), "{card}");
        assert!(card.contains("^^^^"), "{card}");
        assert!(card.contains("did you mean `queue`?"), "{card}");
    }

    #[test]
    fn a_place_outside_the_source_is_no_panic() {
        for (line, column) in [(1, 1), (9, 9), (1, 400)] {
            let _ = Fault::new("a.rhai", Position::new(line, column), "x").card("é", false);
        }
        let _ = Fault::new("a.rhai", Position::NONE, "x").card("", false);
    }

    #[test]
    fn near_words_are_found() {
        assert_eq!(near("quue", ["queue", "timeout"]).as_deref(), Some("did you mean `queue`?"));
        assert_eq!(near("To", ["cc", "to"]).as_deref(), Some("did you mean `to`?"));
        assert_eq!(near("n", ["a", "b"]), None, "every short name is near to every other");
        assert_eq!(near("zzzz", ["queue", "timeout"]), None);
    }
}

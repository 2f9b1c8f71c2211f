//! Which brackets are open at a place of a source, past strings and comments: for hints only, so it forgives what it does
//! not understand.

/// A bracket that nothing has closed yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open {
    pub bracket: char,
    pub line: usize,
    /// Blanks before the first word of its line.
    indent: usize,
}

impl Open {
    pub fn closer(self) -> char {
        match self.bracket {
            '{' => '}',
            '(' => ')',
            _ => ']',
        }
    }

    pub fn hint(self) -> String {
        format!("the `{}` of line {} is not closed", self.bracket, self.line)
    }
}

#[derive(Debug, Default)]
pub struct State {
    /// The innermost last.
    pub open: Vec<Open>,
    /// Where a comment begins that does not end.
    pub comment: Option<usize>,
    /// The first bracket whose line is indented deeper than that of what closes it.
    crooked: Option<Open>,
}

impl State {
    /// What is most likely not closed.
    pub fn suspect(&self) -> Option<Open> {
        let last = self.open.last()?;
        Some(self.crooked.filter(|open| open.bracket == last.bracket).unwrap_or(*last))
    }
}

/// Reads up to `end`.
pub fn scan(source: &str, end: usize) -> State {
    let mut scan = Scan { text: source.get(..end).unwrap_or(source), at: 0, state: State::default() };
    scan.code();
    scan.state
}

struct Scan<'a> {
    text: &'a str,
    at: usize,
    state: State,
}

impl Scan<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn line(&self) -> usize {
        self.text[..self.at].matches('\n').count() + 1
    }

    fn indent(&self) -> usize {
        let start = self.text[..self.at].rfind('\n').map_or(0, |at| at + 1);
        self.text[start..].chars().take_while(|c| c.is_whitespace()).count()
    }

    /// Past the next `end`, or to the end of the text.
    fn skip_to(&mut self, end: &str) -> bool {
        let found = self.rest().find(end);
        self.at = found.map_or(self.text.len(), |at| self.at + at + end.len());
        found.is_some()
    }

    fn code(&mut self) {
        // Where a text between backticks goes on once so many brackets are open.
        let mut texts: Vec<usize> = Vec::new();
        while let Some(c) = self.rest().chars().next() {
            if self.rest().starts_with("//") {
                self.skip_to("\n");
            } else if self.rest().starts_with("/*") {
                self.comment();
            } else if self.rest().starts_with("#\"") || self.rest().starts_with("##") {
                self.raw();
            } else {
                self.at += c.len_utf8();
                match c {
                    '"' => self.quoted('"'),
                    '\'' => self.quoted('\''),
                    '`' => self.backticks(&mut texts),
                    '{' | '(' | '[' => {
                        let open = Open { bracket: c, line: self.line(), indent: self.indent() };
                        self.state.open.push(open);
                    }
                    '}' | ')' | ']' => {
                        self.close(c);
                        if c == '}' && texts.last() == Some(&self.state.open.len()) {
                            texts.pop();
                            self.backticks(&mut texts);
                        }
                    }
                    _ => {}
                }
            }
        }
    }

    fn close(&mut self, closer: char) {
        let Some(open) = self.state.open.last().copied().filter(|open| open.closer() == closer) else { return };
        self.state.open.pop();
        if self.state.crooked.is_none() && open.line < self.line() && open.indent > self.indent() {
            self.state.crooked = Some(open);
        }
    }

    /// Comments nest.
    fn comment(&mut self) {
        let line = self.line();
        self.at += 2;
        let mut depth = 1;
        while depth > 0 {
            let Some(c) = self.rest().chars().next() else {
                self.state.comment = Some(line);
                return;
            };
            let two = self.rest().get(..2).unwrap_or_default();
            depth += i32::from(two == "/*") - i32::from(two == "*/");
            self.at += if matches!(two, "/*" | "*/") { 2 } else { c.len_utf8() };
        }
    }

    fn raw(&mut self) {
        let hashes = self.rest().chars().take_while(|c| *c == '#').count();
        self.at += hashes;
        if self.rest().starts_with('"') {
            self.at += 1;
            self.skip_to(&format!("\"{}", "#".repeat(hashes)));
        }
    }

    /// To the end of a text or character, at latest that of the line.
    fn quoted(&mut self, quote: char) {
        while let Some(c) = self.rest().chars().next().filter(|c| *c != '\n') {
            self.at += c.len_utf8();
            if c == '\\' {
                self.at += self.rest().chars().next().map_or(0, char::len_utf8);
            } else if c == quote {
                return;
            }
        }
    }

    /// To the end of a text between backticks, or into one of its `${`.
    fn backticks(&mut self, texts: &mut Vec<usize>) {
        while let Some(c) = self.rest().chars().next() {
            if self.rest().starts_with("${") {
                self.at += 1;
                texts.push(self.state.open.len());
                return;
            }
            self.at += c.len_utf8();
            if c == '`' {
                return;
            }
        }
    }
}

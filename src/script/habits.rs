//! What helps with a syntax error: what the author may be used to from another language, the word that Rhai keeps for
//! itself, the bracket that was never closed. Looks at the text around the place, and says nothing where it would guess.

use rhai::{LexError, ParseErrorType, Position};

use super::brackets::{self, Open, State};

/// The text around the place of an error.
struct Around<'a> {
    /// What stands before it on its line.
    before: &'a str,
    /// What stands from it on.
    rest: &'a str,
    line: usize,
}

/// What is worth saying beside the parser's own words.
pub fn hint(source: &str, at: Position, error: &ParseErrorType) -> Option<String> {
    let text = error.to_string();
    let Some(around) = Around::new(source, at) else { return at_the_end(source) };
    match error {
        ParseErrorType::BadInput(LexError::UnterminatedString) => {
            Some("a string over several lines is written between backticks: `…`".to_owned())
        }
        ParseErrorType::BadInput(LexError::MalformedChar(_)) => {
            Some("text is written in double quotes: \"…\"; single quotes hold one character".to_owned())
        }
        ParseErrorType::BadInput(LexError::MalformedEscapeSequence(_)) => {
            Some("a `\\` itself is written `\\\\`; between backticks it stands for itself".to_owned())
        }
        _ if text.contains("is disabled") => {
            Some("scripts do not run text as code: call a function instead".to_owned())
        }
        _ if text.contains("reserved") => Some(around.reserved(text.split('\'').nth(1).unwrap_or_default())),
        ParseErrorType::WrongFnDefinition => Some(around.nested(source)),
        ParseErrorType::WrongDocComment => {
            Some("`///` describes the function that follows; other comments begin with `//`".to_owned())
        }
        ParseErrorType::ExprExpected(what) if what == "a literal" => Some(
            "the cases of a `switch` are literal values and ranges; a condition follows one: `1 if ready => …`"
                .to_owned(),
        ),
        ParseErrorType::LiteralTooLarge(..) | ParseErrorType::AssignmentToConstant(_) => None,
        _ => around.foreign(&text).map(str::to_owned).or_else(|| around.open(source)),
    }
}

/// What was open at the end of the file.
fn at_the_end(source: &str) -> Option<String> {
    let state = brackets::scan(source, source.len());
    if let Some(line) = state.comment {
        return Some(format!("the comment that begins with `/*` in line {line} is not closed"));
    }
    state.suspect().map(Open::hint)
}

impl<'a> Around<'a> {
    fn new(source: &'a str, at: Position) -> Option<Self> {
        let line = at.line()?;
        let start: usize = source.split_inclusive('\n').take(line - 1).map(str::len).sum();
        let text = source.get(start..)?;
        let end = text.find('\n').unwrap_or(text.len());
        let column = at.position().unwrap_or(1).max(1);
        let from = text[..end].char_indices().nth(column - 1)?.0;
        Some(Self { before: &text[..from], rest: &text[from..], line })
    }

    /// The word at the place.
    fn word(&self) -> &'a str {
        let end = self.rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(self.rest.len());
        &self.rest[..end]
    }

    /// The word before the place.
    fn last_word(&self) -> &'a str {
        let before = self.before.trim_end();
        &before[before.rfind(|c: char| !c.is_alphanumeric() && c != '_').map_or(0, |at| at + 1)..]
    }

    /// A word or sign that Rhai keeps for itself.
    fn reserved(&self, word: &str) -> String {
        let is_name = matches!(self.last_word(), "fn" | "let" | "const") || self.before.ends_with(['.', ':']);
        let is_key = self.rest.get(word.len()..).is_some_and(|after| after.trim_start().starts_with(':'));
        if is_key {
            return format!(
                "Rhai keeps the word `{word}` for itself: as the key of a map write it in quotes, \"{word}\": …"
            );
        }
        let instead = match word {
            _ if is_name => return format!("Rhai keeps `{word}` for itself: take another name"),
            "null" | "nil" | "void" => "the value for nothing is `()`",
            "var" => "variables are declared with `let`",
            "match" | "case" => "choose with `switch x { 1 => …, _ => … }`",
            "default" => "the last case of a `switch` is `_ => …`",
            "new" => "a map is written `#{ key: value }`, an array `[1, 2]`",
            "async" | "await" | "spawn" | "go" | "thread" | "yield" | "sync" => {
                "a script simply waits: calls such as `http::get` hold nothing up meanwhile"
            }
            "print" | "debug" | "type_of" | "call" | "curry" | "is_shared" | "is_def_fn" | "is_def_var" | "Fn" => {
                return format!("it is a function: `{word}(…)`");
            }
            "public" | "protected" | "static" => "every `fn` can be called from outside unless it is `private fn`",
            "use" | "with" | "module" | "package" | "include" => "modules come with `import \"lib/NAME\" as NAME;`",
            "exit" => "a job ends with `return`, or with `fail(\"why\")`",
            "~" => "a bitwise not is `x ^ -1`",
            _ => {
                return format!(
                    "Rhai keeps `{word}` for itself: take another name; as the key of a map it is \"{word}\": …"
                );
            }
        };
        instead.to_owned()
    }

    /// How another language would write it.
    fn foreign(&self, message: &str) -> Option<&'static str> {
        let rest = self.rest;
        if message.starts_with("Unknown operator: '++'") {
            return Some("write `x += 1`");
        }
        if message.starts_with("Unknown operator: '--'") {
            return Some("write `x -= 1`");
        }
        if message.starts_with("Unknown operator: '?'") {
            return Some("write `if a { b } else { c }`, which is a value; `a ?? b` gives b where a is ()");
        }
        if rest.chars().next().is_some_and(|c| c.is_alphabetic() && !c.is_ascii()) {
            return Some("names are made of a-z, A-Z, 0-9 and _; in texts any character will do");
        }
        if message.starts_with("Expecting '{' to start a statement block") {
            return Some("what `if`, `while`, `for` and `fn` do stands in braces: `{ … }`");
        }
        if message.starts_with("Expecting 'in'")
            || (message.contains("name of a variable")
                && self.last_word().is_empty()
                && self.before.trim_start().starts_with("for"))
        {
            return Some("a loop is `for x in list { … }` or `for i in 0..10 { … }`");
        }
        if message.contains("name of a variable") && rest.starts_with(['[', '{', '(']) {
            return Some("Rhai does not take values apart: write a `let` for each");
        }
        if message.contains("name of a variable") && rest.starts_with(|c: char| c.is_ascii_digit() || c == '$') {
            return Some("names begin with a letter or `_`");
        }
        if message.contains("name of a property") && rest.starts_with('\'') {
            return Some("keys stand as they are or in double quotes: #{ name: 1, \"two words\": 2 }");
        }
        if message.starts_with("Expecting ';'") {
            return self.unfinished();
        }
        None
    }

    /// A statement that goes on where Rhai thinks that it has ended.
    fn unfinished(&self) -> Option<&'static str> {
        match self.last_word() {
            "function" | "def" | "func" | "sub" => return Some("functions are declared with `fn name(x) { … }`"),
            "elif" | "elsif" | "elseif" => return Some("write `else if`"),
            "not" => return Some("write `!`"),
            "f" | "b" | "r" if self.rest.starts_with(['"', '\'']) => {
                return Some("a text with values in it stands between backticks: `total: ${sum}`");
            }
            "echo" | "puts" | "console" => return Some("write `print(…)`, or `log::info(…)`"),
            _ => {}
        }
        match self.word() {
            "and" => return Some("write `&&`"),
            "or" => return Some("write `||`"),
            "as" => return Some("values are turned into others with `to_int()`, `to_float()` and `to_string()`"),
            _ => {}
        }
        if self.rest.starts_with("=>") {
            return Some("a closure is `|x| x + 1`");
        }
        if self.rest.starts_with(':') {
            let inside = self.before.trim_end_matches(|c: char| c != '{');
            let is_map = inside.trim_end().strip_suffix('{').is_some_and(|text| !text.ends_with('#'));
            return Some(if is_map {
                "a map begins with `#{`: #{ key: value }"
            } else {
                "variables and parameters are declared without types"
            });
        }
        if self.before.trim().is_empty() && self.line > 1 {
            return Some("a `;` is missing at the end of the statement before");
        }
        None
    }

    /// What is open before the place.
    fn state(&self, source: &str) -> State {
        brackets::scan(source, self.rest.as_ptr() as usize - source.as_ptr() as usize)
    }

    /// A function that begins before another one has ended, by intent or not.
    fn nested(&self, source: &str) -> String {
        let is_intended = !self.before.is_empty();
        match self.state(source).suspect().filter(|_| !is_intended) {
            Some(open) => open.hint(),
            None => "within a function write a closure: `let f = |x| …;`".to_owned(),
        }
    }

    /// A bracket that should have been closed before.
    fn open(&self, source: &str) -> Option<String> {
        let closes = self.rest.chars().next().filter(|c| matches!(c, '}' | ')' | ']' | ';'))?;
        let state = self.state(source);
        match (state.open.last(), closes) {
            (None, '}' | ')' | ']') => Some(format!("nothing is open here that a `{closes}` could close")),
            (Some(open), '}' | ')' | ']') if open.closer() == closes => None,
            (Some(open), ';') if open.bracket == '{' => None,
            (Some(open), _) => Some(open.hint()),
            (None, _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use rhai::Engine;

    use super::*;

    fn help(source: &str) -> String {
        let error = Engine::new().compile(source).expect_err(source);
        hint(source, error.position(), error.err_type()).unwrap_or_else(|| format!("none for {error}"))
    }

    #[test]
    fn habits_of_other_languages_are_known() {
        for (source, expected) in [
            ("let x = null;", "`()`"),
            ("let x = #{ default: 1 };", "\"default\": …"),
            ("x++;", "x += 1"),
            ("let x = a ? b : c;", "if a { b } else { c }"),
            ("function f() {}", "`fn name"),
            ("if true { } elif false { }", "else if"),
            ("let f = x => x + 1;", "|x| x + 1"),
            ("let m = { a: 1 };", "#{ key: value }"),
            ("let x: int = 5;", "without types"),
            ("let a = 'text';", "double quotes"),
            ("if (a) b();", "braces"),
            ("for x of [1] { }", "for x in list"),
            ("for (let i = 0; i < 3; i += 1) { }", "for x in list"),
            ("let [a, b] = [1, 2];", "`let` for each"),
            ("let été = 1;", "a-z"),
            ("let a = 1\nlet b = 2;", "`;` is missing"),
            ("let a = true and false;", "`&&`"),
            ("fn f() { fn g() { } }", "closure"),
            ("let s = f\"x\";", "backticks"),
            ("print \"x\";", "print(…)"),
            ("fn go() { }", "another name"),
            ("fn f() { 1 }\n/// the end\n", "begin with `//`"),
        ] {
            let said = help(source);
            assert!(said.contains(expected), "{source}: {said}");
        }
    }

    #[test]
    fn what_is_open_is_named_with_its_line() {
        for (source, expected) in [
            ("fn f() {\n    g(1, 2\n}\n", "the `(` of line 2"),
            ("fn f() {\n    if true {\n        g();\n}\n", "the `{` of line 2"),
            ("fn f() {\n    let a = [1, 2;\n}\n", "the `[` of line 2"),
            ("fn f() { 1 }\n}\n", "nothing is open"),
            ("fn f() {\n    if true {\n        1;\n}\nfn g() { }\n", "the `{` of line 2"),
            ("fn f() {\n/* a comment\n}\n", "the comment that begins with `/*` in line 2"),
            ("fn f() {\n    let s = \"{ ( [\"; // (\n    let t = `${ \"}\" }`;\n", "the `{` of line 1"),
        ] {
            let said = help(source);
            assert!(said.contains(expected), "{source}: {said}");
        }
    }
}

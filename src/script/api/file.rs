//! `file::save`, `read`, `list`: the files of the job itself.

use rhai::{Array, Dynamic, Map, Module};

use super::reference::{Function, Namespace, Outcome};
use super::{answer, args, put};
use crate::job::{ErrorKind, FileInfo};
use crate::script::account;
use crate::script::context::{self, RunContext, ScriptResult};
use crate::script::ports::HostError;

/// Bytes.
const MAX_NAME: usize = 128;

pub const REFERENCE: Namespace = Namespace {
    name: "file",
    about: "The files of the job itself. Clients read them under `/v1/jobs/{id}/files/{name}`.",
    functions: &[
        Function::new(
            &["save(name: string, content: string | blob) -> map"],
            "`#{ name, size, content_type, sha256 }`; the same name again replaces it",
            r#"file::save("hello.txt", "Hello\n").size"#,
            Outcome::Value("6"),
        ),
        Function::new(
            &["read(name: string) -> string | blob"],
            "a string when it is UTF-8, else a blob",
            "file::save(\"hello.txt\", \"Hello\\n\");\nfile::read(\"hello.txt\")",
            Outcome::Value(r#""Hello\n""#),
        ),
        Function::new(
            &["list() -> array"],
            "what the job has saved, in any attempt",
            "file::save(\"hello.txt\", \"Hello\\n\");\nfile::list().map(|file| file.name)",
            Outcome::Value(r#"["hello.txt"]"#),
        ),
    ],
    notes: "Names are 1 to 128 characters of `A-Z a-z 0-9 . _ -` and space, beginning with a letter or digit.",
};

pub fn module() -> Module {
    let mut module = Module::new();
    put!(&mut module, "save", |name: Dynamic, content: Dynamic| save(&name, &content));
    put!(&mut module, "read", |name: Dynamic| read(&name));
    put!(&mut module, "list", || list());
    module
}

fn save(name: &Dynamic, content: &Dynamic) -> ScriptResult<Map> {
    let run = context::current()?;
    let name = file_name("file::save", name)?;
    let content = args::bytes("file::save", "content", content)?;
    let saved = account::uncharged(|| run.services.elsewhere(run.ports.save_file(name.clone(), content)));
    let info = answer(saved)?;
    enter(&info);
    Ok(described(info))
}

fn read(name: &Dynamic) -> ScriptResult<Dynamic> {
    let run = context::current()?;
    let name = file_name("file::read", name)?;
    let files = listed(&run)?;
    let Some(info) = files.iter().find(|info| info.name == name) else {
        let message = format!("file::read: this job has no file `{name}`");
        return Err(context::throw(HostError::new(ErrorKind::HostFile, message, false)));
    };
    content(&run, info).map(text_or_blob)
}

/// A file's bytes, entered into the account. The room for them is asked for first: a file may be larger than the
/// machine's memory, and nobody counts what is read on the way here.
pub fn content(run: &RunContext, info: &FileInfo) -> ScriptResult<Vec<u8>> {
    account::reserve(usize::try_from(info.size).unwrap_or(usize::MAX))?;
    let found = account::uncharged(|| run.services.elsewhere(run.ports.read_file(info.name.clone())));
    let bytes = answer(found)?;
    account::adopt(bytes.capacity());
    Ok(bytes)
}

/// A name that leads nowhere else, wherever the files are kept.
fn file_name(function: &str, name: &Dynamic) -> ScriptResult<String> {
    let name = args::text(function, "name", name)?;
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b' ');
    let starts_well = name.as_bytes().first().is_some_and(u8::is_ascii_alphanumeric);
    if starts_well && name.len() <= MAX_NAME && name.bytes().all(plain) {
        return Ok(name.to_string());
    }
    Err(args::wrong(format!(
        "{function}: `name` must be 1 to {MAX_NAME} characters of A-Z a-z 0-9 . _ - and space, and begin with a letter or digit"
    )))
}

fn list() -> ScriptResult<Array> {
    let files = listed(&*context::current()?)?;
    Ok(files.into_iter().map(|info| described(info).into()).collect())
}

/// The job's files, entered into the account.
pub fn listed(run: &RunContext) -> ScriptResult<Vec<FileInfo>> {
    let listed = account::uncharged(|| run.services.elsewhere(run.ports.list_files()));
    let files = answer(listed)?;
    account::adopt(files.capacity() * size_of::<FileInfo>());
    files.iter().for_each(enter);
    Ok(files)
}

/// Charges the run with the texts of a description from another thread.
fn enter(info: &FileInfo) {
    account::adopt(info.name.capacity() + info.content_type.capacity() + info.sha256.capacity());
}

fn described(info: FileInfo) -> Map {
    let mut map = Map::new();
    map.insert("name".into(), info.name.into());
    map.insert("size".into(), i64::try_from(info.size).unwrap_or(i64::MAX).into());
    map.insert("content_type".into(), info.content_type.into());
    map.insert("sha256".into(), info.sha256.into());
    map
}

/// Bytes as a script value: text when they are UTF-8, else a blob.
pub fn text_or_blob(bytes: Vec<u8>) -> Dynamic {
    match String::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(error) => Dynamic::from_blob(error.into_bytes()),
    }
}

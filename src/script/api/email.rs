//! `email::send`: one message, with the job's own files as attachments.

use std::fmt::Display;

use rhai::{Dynamic, Map, Module};

use super::reference::{Function, Namespace, Outcome};
use super::{answer, args, call_id, file, handed_over, put};
use crate::job::ErrorKind;
use crate::script::account;
use crate::script::context::{self, RunContext, ScriptResult};
use crate::script::ports::HostError;
use crate::script::services::mail::{AttachedFile, Letter, MAX_MESSAGE};

const FUNCTION: &str = "email::send";
const FIELDS: [&str; 9] = ["to", "cc", "bcc", "from", "reply_to", "subject", "text", "html", "attachments"];

pub const REFERENCE: Namespace = Namespace {
    name: "email",
    about: "",
    functions: &[Function::new(
        &["send(mail: map) -> string"],
        "sends one letter; its message id",
        "file::save(\"report.csv\", \"a,b\\n\");\n\
         let id = email::send(#{\n    to: [\"Ada <ada@example.com>\"],\n    subject: \"Your report\",\n    \
         text: \"Here it is.\",\n    attachments: [\"report.csv\"],\n});\n\
         id.ends_with(\"@ryemill>\")",
        Outcome::Value("true"),
    )],
    notes: "`subject` and one of `to`, `cc`, `bcc` are needed; `from` (the operator's `MAIL_FROM`), `reply_to`, `text`, `html`, \
            `attachments`.\nAddresses are a string or an array of strings, one address each: `ada@example.com` or \
            `Ada <ada@example.com>`. `attachments`\nare names of files that the job saved. A message has at most 100 recipients \
            and 25 MiB. With an outbox folder as\n`MAILER_URL` each letter becomes `ID.eml`, where the message id is \
            `<ID@ryemill>`.",
};

pub fn module() -> Module {
    let mut module = Module::new();
    put!(&mut module, "send", |mail: Dynamic| send(mail));
    module
}

fn send(mail: Dynamic) -> ScriptResult<String> {
    let run = context::current()?;
    let mail = args::options(FUNCTION, "mail", mail, &FIELDS)?;
    let letter = letter(&run, &mail)?;
    let letter = handed_over(&letter);
    let reply = account::uncharged(|| run.services.mail.send(letter));
    answer(reply)
}

/// Built in the script's memory.
fn letter(run: &RunContext, mail: &Map) -> ScriptResult<Letter> {
    let field = |key: &str| mail.get(key).filter(|value| !value.is_unit());
    let many = |key: &str| field(key).map_or(Ok(Vec::new()), |value| args::texts(FUNCTION, key, value));
    let one =
        |key: &str| field(key).map(|value| args::text(FUNCTION, key, value).map(|text| text.to_string())).transpose();

    let Some(subject) = one("subject")? else {
        return Err(args::wrong(format!("{FUNCTION}: `subject` is missing")));
    };
    let mut letter = Letter {
        id: String::new(),
        from: one("from")?,
        reply_to: many("reply_to")?,
        to: many("to")?,
        cc: many("cc")?,
        bcc: many("bcc")?,
        subject,
        text: one("text")?,
        html: one("html")?,
        attachments: attached(run, &many("attachments")?)?,
    };
    letter.id = id(run, &letter);
    Ok(letter)
}

/// The named files of this job.
fn attached(run: &RunContext, names: &[String]) -> ScriptResult<Vec<AttachedFile>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let files = file::listed(run)?;
    let mut attachments = Vec::new();
    let mut size = 0;
    for name in names {
        let Some(info) = files.iter().find(|info| info.name == *name) else {
            let known: Vec<_> = files.iter().map(|info| info.name.as_str()).collect();
            return Err(failed(format!("there is no file `{name}` of this job (there are: {})", known.join(", "))));
        };
        size += info.size;
        // Seen before anything is read, so that a large file ends the call and not the run.
        if size > MAX_MESSAGE as u64 {
            return Err(failed(format!("the attachments have more than the {MAX_MESSAGE} bytes that are sent")));
        }
        attachments.push(AttachedFile {
            name: name.clone(),
            content_type: info.content_type.clone(),
            content: file::content(run, info)?,
        });
    }
    Ok(attachments)
}

fn failed(message: impl Display) -> Box<rhai::EvalAltResult> {
    context::throw(HostError::new(ErrorKind::HostEmail, format!("{FUNCTION}: {message}"), false))
}

/// The same when another attempt sends the same letter.
fn id(run: &RunContext, letter: &Letter) -> String {
    let Letter { from, reply_to, to, cc, bcc, subject, text, html, attachments, id: _ } = letter;
    let optional = |text: &Option<String>| text.as_deref().unwrap_or_default().to_owned();
    let addresses = [reply_to, to, cc, bcc].map(|list| list.join(",")).join(";");
    let mut parts = vec![optional(from), addresses, subject.clone(), optional(text), optional(html)];
    parts.extend(attachments.iter().map(|file| file.name.clone()));
    let mut parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
    parts.extend(attachments.iter().map(|file| file.content.as_slice()));
    call_id(run, FUNCTION, &parts)
}

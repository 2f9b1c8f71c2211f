//! Outgoing mail: to an SMTP server, or as `.eml` files into a folder.
//!
//! A letter is checked and built here; addresses and names cannot carry header lines. Knows nothing of jobs: message
//! id and attachments come as they are.

use std::fmt::Display;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use lettre::address::Envelope;
use lettre::message::header::ContentType;
use lettre::message::{Attachment, Mailbox, MessageBuilder, MultiPart, SinglePart};
use lettre::transport::smtp;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use tokio::runtime::Handle;

use super::edge::Edge;
use super::{Reply, joined};
use crate::job::ErrorKind;
use crate::script::notes::Errand;
use crate::script::ports::{HostError, HostResult};

/// Bytes of a whole message as it goes out. Most servers refuse more.
pub const MAX_MESSAGE: usize = 25 << 20;
/// Of `to`, `cc` and `bcc` together. RFC 5321 has every server take 100.
const MAX_RECIPIENTS: usize = 100;
/// Bytes of a subject, an address or a file's name. Folding a longer one takes time that grows with its square.
const MAX_LINE: usize = 4 << 10;
/// For each step of the conversation with the server.
const SMTP_TIMEOUT: Duration = Duration::from_secs(30);

/// A file that goes along.
#[derive(Clone, Debug)]
pub struct AttachedFile {
    pub name: String,
    pub content_type: String,
    pub content: Vec<u8>,
}

/// What a script gives to send. Addresses are `ada@example.com` or `Ada <ada@example.com>`, one each.
#[derive(Clone, Debug, Default)]
pub struct Letter {
    /// Unique for this letter and the same when it is sent again: letters and digits.
    pub id: String,
    /// The configured sender when absent.
    pub from: Option<String>,
    pub reply_to: Vec<String>,
    pub to: Vec<String>,
    pub cc: Vec<String>,
    pub bcc: Vec<String>,
    pub subject: String,
    pub text: Option<String>,
    pub html: Option<String>,
    pub attachments: Vec<AttachedFile>,
}

/// The way out.
#[derive(Debug)]
pub struct Mail {
    from: Mailbox,
    way: Way,
    runtime: Handle,
}

#[derive(Clone, Debug)]
enum Way {
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    Folder(Arc<Path>),
    Edge(Arc<dyn Edge>),
}

impl Mail {
    /// Sends through `url`: `smtp://user:password@host:port`, with `?tls=required` for STARTTLS, or `smtps://…`.
    ///
    /// # Errors
    /// When the URL or the sender is not valid. No connection is made.
    pub fn smtp(url: &str, from: &str, runtime: Handle) -> Result<Self, String> {
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)
            .map_err(|error| format!("MAILER_URL: {}", with_sources(&error)))?;
        // The pool starts a task of its own.
        let _entered = runtime.enter();
        let transport = builder.timeout(Some(SMTP_TIMEOUT)).build();
        Ok(Self { from: sender(from)?, way: Way::Smtp(transport), runtime })
    }

    /// Writes each letter as `ID.eml` into `folder`, which is made when it is missing.
    ///
    /// # Errors
    /// When the sender is not valid.
    pub fn folder(folder: PathBuf, from: &str, runtime: Handle) -> Result<Self, String> {
        Ok(Self { from: sender(from)?, way: Way::Folder(folder.into()), runtime })
    }

    /// Sends nothing from now on.
    pub fn answer_by(&mut self, edge: Arc<dyn Edge>) {
        self.way = Way::Edge(edge);
    }

    /// Sends `letter` and gives its message id, `<ID@ryemill>`. Once begun it goes on when the reply is dropped: a
    /// conversation broken off in the middle would leave its connection useless for the next letter.
    ///
    /// # Errors
    /// Of kind `host.email`, through the reply; with the server's status code where it gave one.
    pub fn send(&self, letter: Letter) -> Reply<String> {
        let (from, way, errand) = (self.from.clone(), self.way.clone(), Errand::here());
        let kept = matches!(way, Way::Edge(_)).then(|| letter.clone());
        let finish = move || {
            let _working = errand.begin();
            finished(letter, from)
        };
        Reply::of_all(&self.runtime, async move {
            let built = joined(tokio::task::spawn_blocking(finish).await)?;
            let message_id = built.message_id.clone();
            match (way, kept) {
                (Way::Edge(edge), Some(letter)) => edge.mail(letter),
                (way, _) => way.carry(built).await?,
            }
            Ok(message_id)
        })
    }
}

/// A message in the form that goes out.
struct Built {
    id: String,
    message_id: String,
    envelope: Envelope,
    bytes: Vec<u8>,
}

impl Way {
    async fn carry(self, built: Built) -> HostResult<()> {
        match self {
            Self::Smtp(transport) => match transport.send_raw(&built.envelope, &built.bytes).await {
                Ok(_) => Ok(()),
                Err(error) => Err(refused(&error)),
            },
            Self::Edge(_) => Ok(()),
            Self::Folder(folder) => {
                let written = tokio::task::spawn_blocking(move || write_letter(&folder, &built)).await;
                joined(written.map(|result| result.map_err(|error| email_error(error, true))))
            }
        }
    }
}

/// Whole or not at all: what reads the folder never sees half a letter.
fn write_letter(folder: &Path, built: &Built) -> Result<(), String> {
    let said = |error: io::Error| format!("cannot write into the outbox {}: {error}", folder.display());
    std::fs::create_dir_all(folder).map_err(said)?;
    let unfinished = folder.join(format!(".{}.{:016x}.tmp", built.id, rand::random::<u64>()));
    let moved = std::fs::write(&unfinished, &built.bytes)
        .and_then(|()| std::fs::rename(&unfinished, folder.join(format!("{}.eml", built.id))));
    moved.map_err(|error| {
        let _ = std::fs::remove_file(&unfinished);
        said(error)
    })
}

fn finished(letter: Letter, from: Mailbox) -> HostResult<Built> {
    let recipients = letter.to.len() + letter.cc.len() + letter.bcc.len();
    if recipients == 0 {
        return Err(wrong("there is nobody to send to: give `to`, `cc` or `bcc`"));
    }
    if recipients > MAX_RECIPIENTS {
        return Err(wrong(format!("{recipients} addresses are more than the {MAX_RECIPIENTS} of one message")));
    }
    single_line("subject", &letter.subject)?;
    let size = letter.attachments.iter().map(|file| file.content.len()).sum::<usize>()
        + letter.text.as_ref().map_or(0, String::len)
        + letter.html.as_ref().map_or(0, String::len);
    // Checked before base64 makes a third more of it, and again after.
    within_limit(size)?;

    let message_id = format!("<{}@ryemill>", letter.id);
    let from = letter.from.as_deref().map(|given| address("from", given)).transpose()?.unwrap_or(from);
    let mut head =
        Message::builder().from(from).subject(letter.subject).message_id(Some(message_id.clone())).date_now();
    head = with_addresses(head, "reply_to", &letter.reply_to, MessageBuilder::reply_to)?;
    head = with_addresses(head, "to", &letter.to, MessageBuilder::to)?;
    head = with_addresses(head, "cc", &letter.cc, MessageBuilder::cc)?;
    head = with_addresses(head, "bcc", &letter.bcc, MessageBuilder::bcc)?;
    let message = with_body(head, letter.text, letter.html, letter.attachments)?;
    let (envelope, bytes) = (message.envelope().clone(), message.formatted());
    within_limit(bytes.len())?;
    Ok(Built { id: letter.id, message_id, envelope, bytes })
}

fn with_addresses(
    head: MessageBuilder,
    field: &str,
    given: &[String],
    put: fn(MessageBuilder, Mailbox) -> MessageBuilder,
) -> HostResult<MessageBuilder> {
    given.iter().try_fold(head, |head, given| Ok(put(head, address(field, given)?)))
}

fn with_body(
    head: MessageBuilder,
    text: Option<String>,
    html: Option<String>,
    attachments: Vec<AttachedFile>,
) -> HostResult<Message> {
    let built = if attachments.is_empty() {
        match (text, html) {
            (Some(text), Some(html)) => head.multipart(MultiPart::alternative_plain_html(text, html)),
            (text, None) => head.singlepart(SinglePart::plain(text.unwrap_or_default())),
            (None, Some(html)) => head.singlepart(SinglePart::html(html)),
        }
    } else {
        let mut parts = match (text, html) {
            (Some(text), Some(html)) => MultiPart::mixed().multipart(MultiPart::alternative_plain_html(text, html)),
            (text, None) => MultiPart::mixed().singlepart(SinglePart::plain(text.unwrap_or_default())),
            (None, Some(html)) => MultiPart::mixed().singlepart(SinglePart::html(html)),
        };
        for file in attachments {
            single_line("attachments", &file.name)?;
            let kind =
                ContentType::parse(&file.content_type).or_else(|_| ContentType::parse("application/octet-stream"));
            let kind = kind.map_err(|error| wrong(format!("`attachments`: {error}")))?;
            parts = parts.singlepart(Attachment::new(file.name).body(file.content, kind));
        }
        head.multipart(parts)
    };
    built.map_err(|error| wrong(error.to_string()))
}

fn sender(from: &str) -> Result<Mailbox, String> {
    from.parse().map_err(|error| format!("MAIL_FROM: `{from}` is not an address: {error}"))
}

fn address(field: &str, given: &str) -> HostResult<Mailbox> {
    single_line(field, given)?;
    given.parse().map_err(|error| {
        let shown: String = given.chars().take(80).collect();
        wrong(format!(
            "`{field}`: `{shown}` is not one address, such as ada@example.com or Ada <ada@example.com>: {error}"
        ))
    })
}

/// A line break in a header would start another header.
fn single_line(field: &str, value: &str) -> HostResult<()> {
    if value.len() > MAX_LINE {
        return Err(wrong(format!("`{field}` has {} bytes, at most {MAX_LINE} are sent", value.len())));
    }
    if value.contains(|c: char| c.is_control() && c != '\t') {
        return Err(wrong(format!("`{field}` contains a line break or another control character")));
    }
    Ok(())
}

fn within_limit(size: usize) -> HostResult<()> {
    if size > MAX_MESSAGE {
        return Err(wrong(format!("the message has {size} bytes, at most {MAX_MESSAGE} are sent")));
    }
    Ok(())
}

fn wrong(message: impl Display) -> HostError {
    email_error(message, false)
}

fn email_error(message: impl Display, retryable: bool) -> HostError {
    HostError::new(ErrorKind::HostEmail, format!("email: {message}"), retryable)
}

/// What the server, or the way to it, said.
fn refused(error: &smtp::Error) -> HostError {
    let retryable = !error.is_permanent() && !error.is_client();
    HostError { status: error.status().map(u16::from), ..email_error(with_sources(error), retryable) }
}

/// What failed and the innermost cause; the layers between repeat one or the other.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    let (what, cause) = (error.to_string(), innermost.to_string());
    if what.contains(&cause) { what } else { format!("{what}: {cause}") }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::{TcpListener, TcpStream};
    use tokio::sync::mpsc;

    use super::*;

    fn letter() -> Letter {
        Letter {
            id: "abc123".to_owned(),
            to: vec!["Ada Lövelace <ada@example.com>".to_owned()],
            subject: "Grüße".to_owned(),
            text: Some("Hello".to_owned()),
            ..Letter::default()
        }
    }

    async fn eml(letter: Letter) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let outbox = folder.path().join("a/outbox");
        let mail = Mail::folder(outbox.clone(), "Mill <mill@example.com>", Handle::current()).unwrap();
        let id = mail.send(letter).await.map_err(|error| {
            assert_eq!((error.kind, error.retryable), (ErrorKind::HostEmail, false));
            error.message
        })?;
        assert_eq!(id, "<abc123@ryemill>");
        let files: Vec<_> = std::fs::read_dir(&outbox).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(files, ["abc123.eml"], "nothing unfinished is left");
        Ok(std::fs::read_to_string(outbox.join("abc123.eml")).unwrap())
    }

    #[tokio::test]
    async fn a_letter_has_its_headers_and_both_bodies() {
        let text = eml(Letter {
            cc: vec!["bob@example.com".to_owned()],
            bcc: vec!["eve@example.com".to_owned()],
            reply_to: vec!["office@example.com".to_owned()],
            html: Some("<p>Hällo</p>".to_owned()),
            ..letter()
        })
        .await
        .unwrap();
        for part in [
            "From: Mill <mill@example.com>",
            "To: =?utf-8?b?",
            "<ada@example.com>",
            "Cc: bob@example.com",
            "Reply-To: office@example.com",
            "Subject: =?utf-8?b?R3LDvMOfZQ==?=",
            "Message-ID: <abc123@ryemill>",
            "multipart/alternative",
            "text/plain; charset=utf-8",
            "text/html; charset=utf-8",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!text.contains("eve@"), "bcc is not for the headers:\n{text}");
    }

    #[tokio::test]
    async fn attachments_go_along_byte_by_byte() {
        let content: Vec<u8> = (0..=255).collect();
        let attachments = vec![
            AttachedFile {
                name: "größe.bin".to_owned(),
                content_type: "nonsense".to_owned(),
                content: content.clone(),
            },
            AttachedFile { name: "a.csv".to_owned(), content_type: "text/csv".to_owned(), content: b"a,b\n".to_vec() },
        ];
        let text = eml(Letter { attachments, ..letter() }).await.unwrap();
        assert!(text.contains("multipart/mixed") && text.contains("Content-Type: text/csv"), "{text}");
        let flat = text.replace("\r\n", "");
        assert!(flat.contains(&data_encoding::BASE64.encode(&content)), "{text}");
    }

    #[tokio::test]
    async fn what_cannot_be_sent_is_refused_by_field() {
        let one = |text: &str| vec![text.to_owned()];
        for (letter, said) in [
            (Letter { to: vec![], ..letter() }, "give `to`, `cc` or `bcc`"),
            (Letter { to: one("nobody"), ..letter() }, "`to`: `nobody` is not one address"),
            (Letter { cc: one("a@b.c, d@e.f"), ..letter() }, "`cc`: `a@b.c, d@e.f` is not one address"),
            (Letter { bcc: one("a@b.c\r\nX: y"), ..letter() }, "`bcc` contains a line break"),
            (Letter { to: one("x\r\nBcc: e@e.e\r\n <a@b.c>"), ..letter() }, "`to` contains a line break"),
            (Letter { from: Some("a@".to_owned()), ..letter() }, "`from`: `a@` is not one address"),
            (Letter { reply_to: one("\n"), ..letter() }, "`reply_to` contains a line break"),
            (
                Letter { subject: "Hi\r\nBcc: eve@example.com".to_owned(), ..letter() },
                "`subject` contains a line break",
            ),
            (Letter { to: vec!["a@b.c".to_owned(); 101], ..letter() }, "101 addresses are more than the 100"),
            (Letter { text: Some("x".repeat(26 << 20)), ..letter() }, "at most 26214400 are sent"),
        ] {
            let error = eml(letter).await.unwrap_err();
            assert!(error.starts_with("email: ") && error.contains(said), "{error}");
        }
    }

    /// One conversation: greets, answers `reply(command)`, and reports every line it was sent.
    async fn converse(stream: TcpStream, heard: mpsc::UnboundedSender<String>, reply: fn(&str) -> &'static str) {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        write.write_all(b"220 test ESMTP\r\n").await.unwrap();
        let mut in_data = false;
        while let Ok(Some(line)) = lines.next_line().await {
            let answer = match line.as_str() {
                "." if in_data => {
                    in_data = false;
                    reply(".")
                }
                _ if in_data => "",
                command => reply(command),
            };
            in_data |= answer.starts_with("354");
            let _ = heard.send(line);
            write.write_all(answer.as_bytes()).await.unwrap();
        }
    }

    async fn server(reply: fn(&str) -> &'static str) -> (String, mpsc::UnboundedReceiver<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap().to_string();
        let (heard, lines) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, heard.clone(), reply));
            }
        });
        (place, lines)
    }

    fn polite(command: &str) -> &'static str {
        match command.split(' ').next().unwrap_or_default() {
            "EHLO" => "250-test\r\n250-8BITMIME\r\n250 AUTH PLAIN\r\n",
            "AUTH" => "235 2.7.0 ok\r\n",
            "DATA" => "354 go on\r\n",
            "QUIT" => "221 bye\r\n",
            _ => "250 ok\r\n",
        }
    }

    #[tokio::test]
    async fn a_server_is_spoken_to_and_its_connection_kept() {
        let (place, mut heard) = server(polite).await;
        let mail =
            Mail::smtp(&format!("smtp://me:pass%20word@{place}"), "mill@example.com", Handle::current()).unwrap();
        let dotted =
            Letter { text: Some("one\r\n.\r\n.two".to_owned()), bcc: vec!["eve@e.com".to_owned()], ..letter() };
        assert_eq!(mail.send(dotted).await.unwrap(), "<abc123@ryemill>");
        mail.send(letter()).await.unwrap();
        drop(mail);
        let mut lines = Vec::new();
        // Each line is reported before it is answered, so all of them are here.
        while let Ok(line) = heard.try_recv() {
            lines.push(line);
        }
        let count = |start: &str| lines.iter().filter(|line| line.starts_with(start)).count();
        assert_eq!((count("EHLO"), count("MAIL FROM:<mill@example.com>"), count("DATA")), (1, 2, 2), "{lines:?}");
        let login = data_encoding::BASE64.encode(b"\0me\0pass word");
        assert_eq!(count(&format!("AUTH PLAIN {login}")), 1, "{lines:?}");
        assert_eq!((count("RCPT TO:<eve@e.com>"), count("RCPT TO:<ada@example.com>")), (1, 2), "{lines:?}");
        // A line that is a dot does not end the message.
        assert_eq!((count(".."), count("..two"), lines.iter().filter(|line| *line == ".").count()), (2, 1, 2));
    }

    #[tokio::test]
    async fn refusals_carry_the_servers_status() {
        let (place, _heard) = server(|command| match command.split(' ').next().unwrap_or_default() {
            "RCPT" if command.contains("full") => "452 4.2.2 mailbox full\r\n",
            "RCPT" => "550 5.1.1 no such user\r\n",
            _ => polite(command),
        })
        .await;
        let mail = Mail::smtp(&format!("smtp://{place}"), "mill@example.com", Handle::current()).unwrap();
        let error = mail.send(letter()).await.unwrap_err();
        assert_eq!((error.kind, error.status, error.retryable), (ErrorKind::HostEmail, Some(550), false), "{error}");
        assert!(error.message.contains("no such user"), "{error}");
        let error = mail.send(Letter { to: vec!["full@e.com".to_owned()], ..letter() }).await.unwrap_err();
        assert_eq!((error.status, error.retryable), (Some(452), true), "{error}");
    }

    #[tokio::test]
    async fn a_server_that_is_away_is_worth_another_try() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let place = listener.local_addr().unwrap();
        drop(listener);
        let mail = Mail::smtp(&format!("smtp://{place}"), "mill@example.com", Handle::current()).unwrap();
        let error = mail.send(letter()).await.unwrap_err();
        assert!(error.retryable && error.status.is_none(), "{error}");
    }

    #[tokio::test]
    async fn required_tls_is_not_given_up_for_a_server_without_it() {
        let (place, mut heard) = server(polite).await;
        let url = format!("smtp://me:password@{place}?tls=required");
        let mail = Mail::smtp(&url, "mill@example.com", Handle::current()).unwrap();
        assert!(mail.send(letter()).await.is_err());
        drop(mail);
        while let Ok(line) = heard.try_recv() {
            assert!(!line.starts_with("AUTH") && !line.starts_with("MAIL"), "sent in the clear: {line}");
        }
    }

    #[tokio::test]
    async fn a_wrong_configuration_is_told_apart() {
        let error = Mail::smtp("http://x", "a@b.c", Handle::current()).unwrap_err();
        assert!(error.starts_with("MAILER_URL: "), "{error}");
        let error = Mail::folder("x".into(), "nobody", Handle::current()).unwrap_err();
        assert!(error.starts_with("MAIL_FROM: `nobody` is not an address"), "{error}");
    }
}

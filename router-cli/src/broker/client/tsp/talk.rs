//! One conversation with a server: version, login, request, answer. Everything that it says is bounded and read once.

use super::document::{ACCEPT, Bad, REJECT, Told, Wish, create, delete, read};
use super::line::Line;
use crate::broker::tsp::auth::respond;
use crate::broker::tsp::wire::{Input, WireError, with_length};
use data_encoding::BASE64;
use std::io;

/// Pieces of one answer that are read.
const PIECES: usize = 4096;

/// How to say who one is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Login {
    /// Nobody.
    Anonymous,
    /// The password as it is.
    Plain,
    /// A proof that one knows it.
    DigestMd5,
}

impl Login {
    /// Its name in the protocol.
    pub fn name(self) -> &'static str {
        match self {
            Login::Anonymous => "ANONYMOUS",
            Login::Plain => "PLAIN",
            Login::DigestMd5 => "DIGEST-MD5",
        }
    }

    /// The one of that name, in either case.
    pub fn parse(name: &str) -> Option<Login> {
        [Login::Anonymous, Login::Plain, Login::DigestMd5].into_iter().find(|l| l.name().eq_ignore_ascii_case(name))
    }
}

/// Who wants what.
#[derive(Clone, Debug)]
pub struct Caller<'a> {
    /// The account; empty: nobody.
    pub user: &'a str,
    /// Its password.
    pub key: &'a str,
    /// The only login that may be used.
    pub login: Option<Login>,
    /// The server as the digest names it.
    pub host: &'a str,
    /// Whether nobody can read what is said: a password may go as it is.
    pub private: bool,
    /// Our part of the digest.
    pub cnonce: String,
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A tunnel.
    Offer(Box<Told>, Login),
    /// Ask these.
    Elsewhere(Vec<String>, Login),
    /// The tunnel is gone there.
    Gone,
}

/// Why nothing did.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    /// The network.
    #[error("{}", network(.0))]
    Network(#[from] io::Error),
    /// What came is no message of the protocol.
    #[error("its answer is not of this protocol: {0}")]
    Wire(#[from] WireError),
    /// The document in it makes no sense.
    #[error("its answer is not understood: {0}")]
    Document(#[from] Bad),
    /// The server said something else than it should have.
    #[error("it said \"{0}\" where {1} was due")]
    Line(String, &'static str),
    /// It refuses.
    #[error("it refuses: {0} {1}")]
    Refused(u16, String),
    /// No login that it takes may be used.
    #[error("{0}")]
    Login(String),
    /// It does not know the password itself.
    #[error("it cannot prove that it knows the account's password: somebody else may be answering in its place")]
    Proof,
    /// It does not offer what is wanted.
    #[error("it has no tunnels of kind {0}: {1}")]
    Kind(&'static str, String),
}

fn network(e: &io::Error) -> String {
    match e.kind() {
        io::ErrorKind::TimedOut => "no answer".into(),
        io::ErrorKind::UnexpectedEof => "it ended the conversation in the middle".into(),
        _ => crate::control::plain(e),
    }
}

/// What a stranger said, fit to be shown.
fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().map(|c| if c.is_control() { ' ' } else { c }).take(80).collect()
}

/// A conversation under way.
pub struct Talk<'l> {
    line: &'l mut dyn Line,
    input: Input,
    pieces: usize,
}

impl<'l> Talk<'l> {
    /// Over this line.
    pub fn new(line: &'l mut dyn Line) -> Self {
        Talk { line, input: Input::default(), pieces: 0 }
    }

    fn say(&mut self, message: &[u8]) -> Result<(), TalkError> {
        Ok(self.line.say(message)?)
    }

    fn more(&mut self) -> Result<(), TalkError> {
        self.pieces += 1;
        if self.pieces > PIECES {
            return Err(WireError::Length.into());
        }
        let bytes = self.line.hear()?;
        Ok(self.input.push(&bytes)?)
    }

    fn text(&mut self) -> Result<Vec<u8>, TalkError> {
        loop {
            if let Some(line) = self.input.line()? {
                return Ok(line);
            }
            self.more()?;
        }
    }

    fn document(&mut self) -> Result<String, TalkError> {
        loop {
            if let Some(text) = self.input.document()? {
                return Ok(text);
            }
            self.more()?;
        }
    }

    /// Logs in. Other brokers to ask, if that is the answer.
    fn enter(&mut self, who: &Caller<'_>, kind: &'static str) -> Result<(Login, Vec<String>), TalkError> {
        self.say(b"VERSION=2.0.2\r\n")?;
        let line = self.text()?;
        let text = shown(&line);
        let list = String::from_utf8_lossy(&line).to_ascii_uppercase();
        let Some(list) = list.strip_prefix("CAPABILITY") else {
            return Err(match status(&line) {
                Some((code, text)) => TalkError::Refused(code, text),
                None => TalkError::Line(text, "its list of capabilities"),
            });
        };
        let words: Vec<&str> = list.split_whitespace().collect();
        let has = |what: &str| words.contains(&what);
        // Brokers that choose do not list the choice.
        if kind != "v6anyv4" && !has(&format!("TUNNEL={}", kind.to_ascii_uppercase())) {
            return Err(TalkError::Kind(kind, text));
        }
        let login = choose(who, |l| has(&format!("AUTH={}", l.name())))?;
        match login {
            Login::Anonymous => self.say(b"AUTHENTICATE ANONYMOUS\r\n")?,
            // In one message: servers answer none of its halves alone.
            Login::Plain => {
                self.say(format!("AUTHENTICATE PLAIN\r\n\0{}\0{}\r\n", who.user, who.key).as_bytes())?;
            }
            Login::DigestMd5 => {
                self.say(b"AUTHENTICATE DIGEST-MD5\r\n")?;
                let challenge = self.text()?;
                if let Some((code, text)) = status(&challenge) {
                    return Err(TalkError::Refused(code, text));
                }
                let answer = respond(&challenge, who.user, who.key, who.host, &who.cnonce);
                let (said, proof) =
                    answer.ok_or_else(|| TalkError::Line(shown(&challenge), "a DIGEST-MD5 challenge"))?;
                self.say(format!("{said}\r\n").as_bytes())?;
                let line = self.text()?;
                if let Some((code, text)) = status(&line) {
                    return Err(TalkError::Refused(code, text));
                }
                if line.trim_ascii() != proof.as_bytes() {
                    return Err(TalkError::Proof);
                }
                // Over UDP the proof is an answer of its own, and is acknowledged.
                if self.line.datagrams() && !self.input.has_line() {
                    self.say(b"")?;
                }
            }
        }
        let line = self.text()?;
        match status(&line) {
            Some((200, _)) => Ok((login, Vec::new())),
            Some((code, _)) if code >= 1000 => Ok((login, self.elsewhere()?)),
            Some((code, text)) => Err(TalkError::Refused(code, text)),
            None => Err(TalkError::Line(shown(&line), "a status")),
        }
    }

    /// The list of brokers behind a redirection that is not a document with its length.
    fn elsewhere(&mut self) -> Result<Vec<String>, TalkError> {
        let mut xml = String::new();
        while !xml.contains("</tunnel>") {
            let line = self.text()?;
            xml.push_str(&String::from_utf8_lossy(&line));
            xml.push('\n');
        }
        Ok(read(&xml)?.brokers)
    }

    /// Logs in and asks for a tunnel.
    ///
    /// # Errors
    /// See [`TalkError`].
    pub fn create(&mut self, who: &Caller<'_>, wish: &Wish) -> Result<Outcome, TalkError> {
        let (login, elsewhere) = self.enter(who, wish.kind)?;
        if !elsewhere.is_empty() {
            return Ok(Outcome::Elsewhere(elsewhere, login));
        }
        self.say(&with_length(&create(wish)))?;
        let text = self.document()?;
        let (line, xml) = text.split_once('\n').unwrap_or((&text, ""));
        match status(line.as_bytes()) {
            Some((200, _)) => Ok(Outcome::Offer(Box::new(read(xml)?), login)),
            Some((code, _)) if code >= 1000 => Ok(Outcome::Elsewhere(read(xml)?.brokers, login)),
            Some((code, text)) => Err(TalkError::Refused(code, text)),
            None => Err(TalkError::Line(shown(line.as_bytes()), "a status")),
        }
    }

    /// Says that the offer is taken, or not. Nothing is answered.
    ///
    /// # Errors
    /// The network's.
    pub fn conclude(&mut self, taken: bool) -> Result<(), TalkError> {
        Ok(self.line.tell(&with_length(if taken { ACCEPT } else { REJECT }))?)
    }

    /// Logs in and gives the tunnel back.
    ///
    /// # Errors
    /// See [`TalkError`].
    pub fn delete(&mut self, who: &Caller<'_>, kind: &'static str) -> Result<Outcome, TalkError> {
        let (login, elsewhere) = self.enter(who, kind)?;
        if !elsewhere.is_empty() {
            return Ok(Outcome::Elsewhere(elsewhere, login));
        }
        self.say(&with_length(&delete(kind)))?;
        let text = self.document()?;
        let line = text.lines().next().unwrap_or_default();
        match status(line.as_bytes()) {
            Some((200, _)) => Ok(Outcome::Gone),
            Some((code, text)) => Err(TalkError::Refused(code, text)),
            None => Err(TalkError::Line(shown(line.as_bytes()), "a status")),
        }
    }
}

/// A line that begins with a code (RFC 5572, appendix B).
fn status(line: &[u8]) -> Option<(u16, String)> {
    let text = shown(line);
    let (code, rest) = text.split_once(' ').unwrap_or((&text, ""));
    // Base64 has no such beginning: a challenge is long.
    let code = (3..=4).contains(&code.len()).then(|| code.parse::<u16>().ok()).flatten()?;
    Some((code, rest.trim().to_owned()))
}

/// The best login that the server takes and that may be used.
fn choose(who: &Caller<'_>, offered: impl Fn(Login) -> bool) -> Result<Login, TalkError> {
    let none = |why: String| Err(TalkError::Login(why));
    if let Some(only) = who.login {
        return match offered(only) {
            true => Ok(only),
            false => none(format!("it does not offer {}", only.name())),
        };
    }
    if who.user.is_empty() {
        return match offered(Login::Anonymous) {
            true => Ok(Login::Anonymous),
            false => none("it gives tunnels to accounts only: say user USER key-file FILE".into()),
        };
    }
    match () {
        () if offered(Login::DigestMd5) => Ok(Login::DigestMd5),
        () if offered(Login::Plain) && who.private => Ok(Login::Plain),
        () if offered(Login::Plain) => {
            none("it takes the password in the clear only, where everybody on the way could read it: say \"auth plain\" if that does not matter".into())
        }
        () => none(format!("it offers no login for the account \"{}\"", who.user)),
    }
}

/// A number for the digest that was not there before.
pub fn cnonce() -> String {
    use rand::RngExt;
    let bytes: [u8; 18] = rand::rng().random();
    BASE64.encode(&bytes)
}

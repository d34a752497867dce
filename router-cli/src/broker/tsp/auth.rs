//! Ways to say who one is (RFC 5572): nobody, by PLAIN (RFC 4616), by DIGEST-MD5 (RFC 2831).
//!
//! PASSDSS-3DES-1 is not there: 512-bit to 1024-bit DSS keys and 3DES are not worth having, and no client needs it.

use crate::broker::secret::md5_hex;
use data_encoding::{BASE64, HEXLOWER};
use md5::{Digest, Md5};
use std::collections::HashMap;
use subtle::ConstantTimeEq;

/// Account and password of a PLAIN answer: `[authzid] NUL authcid NUL password`, with the NULs in front gone.
pub fn plain(line: &[u8]) -> Option<(String, String)> {
    let from = line.iter().position(|b| *b != 0)?;
    let parts: Vec<&[u8]> = line[from..].split(|b| *b == 0).collect();
    let (user, password) = match parts[..] {
        [user, password] | [_, user, password] => (user, password),
        _ => return None,
    };
    let text = |b: &[u8]| String::from_utf8(b.to_vec()).ok();
    Some((text(user)?, text(password)?)).filter(|(u, _)| !u.is_empty())
}

/// A DIGEST-MD5 that is going on.
#[derive(Clone, Debug)]
pub struct Challenge {
    realm: String,
    nonce: String,
}

/// What the client answered, once it has been understood.
#[derive(Debug)]
pub struct Answer {
    /// Who it says it is.
    pub user: String,
    /// Digests of what is agreed on, to be combined with the account's own.
    nonce: String,
    cnonce: String,
    nc: String,
    uri: String,
    response: String,
}

impl Challenge {
    /// A new one.
    pub fn new(realm: &str) -> Self {
        Challenge { realm: realm.replace(['"', '\\'], ""), nonce: crate::broker::secret::make_up() }
    }

    /// The line to send (RFC 2831 2.1.1).
    pub fn line(&self) -> String {
        let text =
            format!("realm=\"{}\",nonce=\"{}\",qop=\"auth\",algorithm=md5-sess,charset=utf-8", self.realm, self.nonce);
        BASE64.encode(text.as_bytes())
    }

    /// The client's answer, if it is one to this challenge.
    pub fn read(&self, line: &[u8]) -> Option<Answer> {
        let text = String::from_utf8(BASE64.decode(line.trim_ascii()).ok()?).ok()?;
        let words = directives(&text)?;
        let get = |k: &str| words.get(k).cloned();
        let answer = Answer {
            user: get("username")?,
            nonce: get("nonce")?,
            cnonce: get("cnonce")?,
            nc: get("nc")?,
            uri: get("digest-uri")?,
            response: get("response")?.to_lowercase(),
        };
        let ours = answer.nonce == self.nonce && get("realm").is_none_or(|r| r == self.realm);
        let kind = get("qop").is_none_or(|q| q == "auth");
        // Once only: a repetition of an answer has the wrong nonce already.
        (ours && kind && answer.nc == "00000001" && answer.uri.starts_with("tsp/")).then_some(answer)
    }

    #[cfg(test)]
    pub fn with_nonce(realm: &str, nonce: &str) -> Self {
        Challenge { realm: realm.into(), nonce: nonce.into() }
    }
}

impl Answer {
    /// Our line if the client knows the password behind `ha1`, the MD5 of `user:realm:password` in hexadecimal; None if
    /// not (RFC 2831 2.1.2.1, 2.1.3).
    pub fn check(&self, ha1: &str) -> Option<String> {
        let (wanted, proof) = responses(ha1, [&self.nonce, &self.nc, &self.cnonce, &self.uri])?;
        let right: bool = wanted.as_bytes().ct_eq(self.response.as_bytes()).into();
        right.then(|| BASE64.encode(format!("rspauth={proof}").as_bytes()))
    }
}

/// What the client has to say, and what the server, of nonce, count, the client's nonce and URI (RFC 2831 2.1.2.1, 2.1.3).
fn responses(ha1: &str, [nonce, nc, cnonce, uri]: [&str; 4]) -> Option<(String, String)> {
    let ha1 = HEXLOWER.decode(ha1.as_bytes()).ok()?;
    // md5-sess: the digest itself, not its text.
    let mut a1 = Md5::new();
    a1.update(&ha1);
    a1.update(format!(":{nonce}:{cnonce}"));
    let a1 = HEXLOWER.encode(&a1.finalize());
    let digest = |a2: &str| {
        let a2 = md5_hex(a2.as_bytes());
        md5_hex(format!("{a1}:{nonce}:{nc}:{cnonce}:auth:{a2}").as_bytes())
    };
    Some((digest(&format!("AUTHENTICATE:{uri}")), digest(&format!(":{uri}"))))
}

/// The client's side: what to answer to a challenge, and the proof to expect then. None: it is no challenge that can be
/// answered (RFC 2831 2.1.1).
pub fn respond(line: &[u8], user: &str, password: &str, host: &str, cnonce: &str) -> Option<(String, String)> {
    let text = String::from_utf8(BASE64.decode(line.trim_ascii()).ok()?).ok()?;
    let words = directives(&text)?;
    let nonce = words.get("nonce").filter(|n| !n.is_empty())?;
    let auth = words.get("qop").is_none_or(|q| q.split(',').any(|w| w.trim() == "auth"));
    if !auth || words.get("algorithm").is_none_or(|a| a != "md5-sess") {
        return None;
    }
    let realm = words.get("realm").map_or("", String::as_str);
    let plain = |t: &str| !t.chars().any(|c| c.is_control() || matches!(c, '"' | '\\'));
    if ![realm, nonce, user, host].into_iter().all(plain) {
        return None;
    }
    let (nc, uri) = ("00000001", format!("tsp/{host}"));
    let ha1 = md5_hex(format!("{user}:{realm}:{password}").as_bytes());
    let (response, proof) = responses(&ha1, [nonce, nc, cnonce, &uri])?;
    let said = format!(
        "charset=utf-8,username=\"{user}\",realm=\"{realm}\",nonce=\"{nonce}\",nc={nc},cnonce=\"{cnonce}\",digest-uri=\"{uri}\",\
         response={response},qop=auth"
    );
    Some((BASE64.encode(said.as_bytes()), BASE64.encode(format!("rspauth={proof}").as_bytes())))
}

/// `name=value` or `name="value"`, with commas between; each name once.
fn directives(text: &str) -> Option<HashMap<String, String>> {
    let mut out = HashMap::new();
    let mut rest = text.trim_matches(|c: char| c == ',' || c.is_whitespace() || c == '\0');
    while !rest.is_empty() {
        let (name, after) = rest.split_once('=')?;
        let value;
        if let Some(quoted) = after.strip_prefix('"') {
            let (mut plain, mut chars) = (String::new(), quoted.char_indices());
            let end = loop {
                match chars.next()? {
                    (_, '\\') => plain.push(chars.next()?.1),
                    (at, '"') => break at,
                    (_, c) => plain.push(c),
                }
            };
            (value, rest) = (plain, &quoted[end + 1..]);
        } else {
            let end = after.find(',').unwrap_or(after.len());
            (value, rest) = (after[..end].trim().to_owned(), &after[end..]);
        }
        rest = rest.trim_start();
        rest = match rest.strip_prefix(',') {
            Some(r) => r.trim_start_matches(|c: char| c == ',' || c.is_whitespace()),
            None if rest.is_empty() => rest,
            None => return None,
        };
        if out.len() >= 16 || out.insert(name.trim().to_ascii_lowercase(), value).is_some() {
            return None;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn plain_answers() {
        let of = |t: &[u8]| plain(t);
        assert_eq!(of(b"\0joe\0secret"), Some(("joe".into(), "secret".into())));
        assert_eq!(of(b"joe\0joe\0secret"), Some(("joe".into(), "secret".into())));
        for bad in [&b"joe"[..], b"\0joe", b"\0\0secret", b"a\0b\0c\0d", b"", b"\0\xff\0x"] {
            assert_eq!(of(bad), None, "{bad:?}");
        }
    }

    /// A client's answer from the wire, to a challenge of this realm and nonce, and the server's proof.
    #[test]
    fn digest_of_a_real_client() {
        let challenge = Challenge::with_nonce("lab.example", "OA6MG9tEQGm2hh");
        assert_eq!(
            challenge.line(),
            "cmVhbG09ImxhYi5leGFtcGxlIixub25jZT0iT0E2TUc5dEVRR20yaGgiLHFvcD0iYXV0aCIsYWxnb3JpdGhtPW1kNS1zZXNzLGNoYXJzZXQ9dXRmLTg="
        );
        let text = "charset=utf-8,username=\"joe\",realm=\"lab.example\",nonce=\"OA6MG9tEQGm2hh\",nc=00000001,\
                    cnonce=\"1795321184\",digest-uri=\"tsp/192.0.2.1\",response=5cadeebdd5ee410e46bf20759e289970,qop=auth";
        let answer = challenge.read(BASE64.encode(text.as_bytes()).as_bytes()).unwrap();
        assert_eq!(answer.user, "joe");
        let proof = answer.check(&md5_hex(b"joe:lab.example:secret")).unwrap();
        assert_eq!(proof, "cnNwYXV0aD03ZDFmNWEwMjBjOGZlMzJiYTVkMDliNGQyMjYzY2Y5Mw==");
        assert_eq!(answer.check(&md5_hex(b"joe:lab.example:wrong")), None);
        let other = Challenge::new("lab.example");
        assert!(other.read(BASE64.encode(text.as_bytes()).as_bytes()).is_none(), "another nonce");
    }

    /// Our client says what that one said, and expects what the server answered; what cannot be answered is not.
    #[test]
    fn responses_of_our_client() {
        let line = |text: &str| BASE64.encode(text.as_bytes());
        let challenge = Challenge::with_nonce("lab.example", "OA6MG9tEQGm2hh");
        let (said, proof) = respond(challenge.line().as_bytes(), "joe", "secret", "192.0.2.1", "1795321184").unwrap();
        let text = String::from_utf8(BASE64.decode(said.as_bytes()).unwrap()).unwrap();
        assert!(text.contains("response=5cadeebdd5ee410e46bf20759e289970,qop=auth"), "{text}");
        assert_eq!(proof, "cnNwYXV0aD03ZDFmNWEwMjBjOGZlMzJiYTVkMDliNGQyMjYzY2Y5Mw==");
        let answer = challenge.read(said.as_bytes()).unwrap();
        assert_eq!(answer.check(&md5_hex(b"joe:lab.example:secret")), Some(proof));
        for bad in [
            "",
            "nonce=\"\",algorithm=md5-sess",
            "nonce=\"x\"",
            "nonce=\"x\",algorithm=md5",
            "realm=\"a\",realm=\"b\",nonce=\"x\",algorithm=md5-sess",
            "nonce=\"x\",qop=\"auth-conf\",algorithm=md5-sess",
            "nonce=\"x\\\"y\",algorithm=md5-sess",
            "rspauth=1",
        ] {
            assert_eq!(respond(line(bad).as_bytes(), "joe", "secret", "h", "1"), None, "{bad}");
        }
        assert_eq!(respond(b"no base64!", "joe", "secret", "h", "1"), None);
    }

    #[test]
    fn directive_lists() {
        let d = directives(r#"a=1, b="x,\"y", ,c=z"#).unwrap();
        assert_eq!((d["a"].as_str(), d["b"].as_str(), d["c"].as_str()), ("1", "x,\"y", "z"));
        for bad in ["a", "a=\"x", "a=1,a=2", "a=\"x\"y"] {
            assert!(directives(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn anything(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = plain(&bytes);
            let _ = Challenge::new("x").read(&bytes);
            let _ = Challenge::new("x").read(BASE64.encode(&bytes).as_bytes());
            let _ = respond(BASE64.encode(&bytes).as_bytes(), "joe", "secret", "h", "1");
        }
    }
}

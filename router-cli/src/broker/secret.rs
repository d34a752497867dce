//! Passwords and keys: argon2id hashes, one at a time, and a memory of what was right lately, so that neither a flood
//! of logins nor a hundred thousand clients that update every few minutes take the processor.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use data_encoding::HEXLOWER;
use hmac::{Hmac, KeyInit, Mac};
use md5::{Digest, Md5};
use rand::RngExt;
use sha2::Sha256;
use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How many may wait for a hash at once; each takes some tens of milliseconds and 19 MiB, one after the other.
const WAITING: usize = 16;
/// How long a right password is remembered.
const MEMORY: Duration = Duration::from_secs(900);
/// How many are remembered.
const REMEMBERED: usize = 16_384;
/// Longest password or key that is looked at, in bytes.
pub const LONGEST: usize = 256;

/// Too many hashes at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many logins at once")]
pub struct Busy;

/// See the module.
pub struct Secrets {
    turn: Mutex<()>,
    waiting: AtomicUsize,
    /// Keyed digest of what was right, and until when.
    right: Mutex<HashMap<[u8; 32], Instant>>,
    key: [u8; 32],
}

impl Default for Secrets {
    fn default() -> Self {
        Secrets {
            turn: Mutex::default(),
            waiting: AtomicUsize::new(0),
            right: Mutex::default(),
            key: rand::rng().random(),
        }
    }
}

/// Takes a place in the queue, gives it back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Secrets {
    fn queue(&self) -> Result<Place<'_>, Busy> {
        let place = Place(&self.waiting);
        if self.waiting.fetch_add(1, Ordering::AcqRel) >= WAITING { Err(Busy) } else { Ok(place) }
    }

    /// The hash of a secret, as a PHC text. Takes its time: not for threads that others wait for.
    pub fn hash(&self, secret: &str) -> Result<String, Busy> {
        let _place = self.queue()?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        Argon2::default().hash_password(secret.as_bytes()).map(|h| h.to_string()).map_err(|_| Busy)
    }

    /// Whether the secret is right and was so lately: no hash needed.
    pub fn remembered(&self, secret: &str, hash: &str) -> bool {
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        let key = self.digest(secret, hash);
        match right.get(&key) {
            Some(until) if *until > Instant::now() => true,
            Some(_) => {
                right.remove(&key);
                false
            }
            None => false,
        }
    }

    /// Whether `secret` is the one behind `hash`. None as hash: there is no such account, which takes as long.
    pub fn verify(&self, secret: &str, hash: Option<&str>) -> Result<bool, Busy> {
        if secret.len() > LONGEST {
            return Ok(false);
        }
        if hash.is_some_and(|h| self.remembered(secret, h)) {
            return Ok(true);
        }
        let _place = self.queue()?;
        let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(hash) = hash else {
            let _ = Argon2::default().hash_password(secret.as_bytes());
            return Ok(false);
        };
        let Ok(parsed) = PasswordHash::new(hash) else { return Ok(false) };
        let ok = Argon2::default().verify_password(secret.as_bytes(), &parsed).is_ok();
        if ok {
            let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
            if right.len() >= REMEMBERED {
                let now = Instant::now();
                right.retain(|_, until| *until > now);
                if right.len() >= REMEMBERED {
                    right.clear();
                }
            }
            right.insert(self.digest(secret, hash), Instant::now() + MEMORY);
        }
        Ok(ok)
    }

    /// A keyed digest of both: a new password has a new hash, so the old one is forgotten by itself.
    fn digest(&self, secret: &str, hash: &str) -> [u8; 32] {
        self.mac(&[hash.as_bytes(), &[0], secret.as_bytes()])
    }

    /// A digest that only this process can make.
    pub fn mac(&self, parts: &[&[u8]]) -> [u8; 32] {
        // A key of any length will do (RFC 2104 3).
        let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(&self.key) else { return [0; 32] };
        parts.iter().for_each(|p| mac.update(p));
        mac.finalize().into_bytes().into()
    }
}

/// A secret that nobody guesses: 160 bits in 32 characters that survive every URL and configuration file.
pub fn make_up() -> String {
    let bytes: [u8; 20] = rand::rng().random();
    data_encoding::BASE32_NOPAD.encode(&bytes).to_lowercase()
}

/// MD5 in hexadecimal: what old clients send instead of a password.
pub fn md5_hex(text: &[u8]) -> String {
    HEXLOWER.encode(&Md5::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn right_wrong_and_remembered() {
        let s = Secrets::default();
        let hash = s.hash("secret").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(hash, s.hash("secret").unwrap(), "salted");
        assert!(!s.remembered("secret", &hash));
        assert!(!s.verify("Secret", Some(&hash)).unwrap());
        assert!(s.verify("secret", Some(&hash)).unwrap());
        assert!(s.remembered("secret", &hash) && !s.remembered("Secret", &hash));
        assert!(!s.verify("secret", None).unwrap());
        assert!(!s.verify(&"x".repeat(LONGEST + 1), Some(&hash)).unwrap());
        assert!(!s.verify("secret", Some("not a hash")).unwrap());
        // A changed password is another hash: nothing of the old one is remembered.
        let other = s.hash("new").unwrap();
        assert!(!s.verify("secret", Some(&other)).unwrap());
    }

    #[test]
    fn the_queue_is_bounded() {
        let s = Secrets::default();
        let held: Vec<_> = (0..WAITING).map(|_| s.queue().unwrap()).collect();
        assert_eq!(s.verify("x", None), Err(Busy));
        drop(held);
        assert_eq!(s.verify("x", None), Ok(false));
    }

    #[test]
    fn made_up_secrets_differ() {
        let (a, b) = (make_up(), make_up());
        assert!(a != b && a.len() == 32 && a.bytes().all(|b| b.is_ascii_alphanumeric()));
        assert_eq!(md5_hex(b"secret"), "5ebe2294ecd0e0f08eab7690d2a6ee69");
    }
}

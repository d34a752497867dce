//! Secret keys come from files that nobody else may read, and stay where they are read.

use super::spec::Key;
use crate::port::PortError;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Longest key file that is looked at.
const LONGEST: u64 = 256;

/// A secret key. It is not printed, and its memory is overwritten when it goes.
pub struct Secret([u8; 32]);

impl Secret {
    /// Its bytes.
    pub fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // The compiler must not leave the line above out.
        std::hint::black_box(&self.0);
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("(hidden)")
    }
}

/// Reads the secret key in `path`: `what` names it in messages. A file that others than its owner may read or write is refused.
pub fn read(port: &str, what: &str, path: &Path) -> Result<Secret, PortError> {
    let shown = path.display();
    let refuse = |reason: String| PortError::Config { port: port.to_owned(), reason };
    let failed = |e: std::io::Error| refuse(format!("cannot read the {what} {shown}: {e}"));
    let file = File::open(path).map_err(failed)?;
    // Of the opened file: what the name leads to may change.
    let meta = file.metadata().map_err(failed)?;
    if !meta.is_file() {
        return Err(refuse(format!("the {what} {shown} is not a plain file")));
    }
    if meta.mode() & 0o077 != 0 {
        return Err(refuse(format!(
            "the {what} {shown} may be read or changed by others (mode {:04o}); chmod 600 {shown}",
            meta.mode() & 0o7777
        )));
    }
    let mut text = String::with_capacity(LONGEST as usize);
    let read = file.take(LONGEST).read_to_string(&mut text);
    let key = match read {
        Ok(_) => text.trim().parse::<Key>().map_err(|e| refuse(format!("the {what} {shown} holds {e}"))),
        Err(e) if e.kind() == std::io::ErrorKind::InvalidData => Err(refuse(format!("the {what} {shown} is no text"))),
        Err(e) => Err(failed(e)),
    };
    drop(Secret(std::array::from_fn(|i| text.as_bytes().get(i).copied().unwrap_or(0))));
    let key = key?;
    // All zero is what an empty key looks like; no secret.
    if key.0 == [0; 32] {
        return Err(refuse(format!("the {what} {shown} is all zero; make one with \"wg genkey\"")));
    }
    Ok(Secret(key.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn only_files_that_nobody_else_reads_are_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let text = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
        let with = |content: &str, mode: u32| {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            read("wg0", "private key", &path)
        };
        let secret = with(&format!("{text}\n"), 0o600).unwrap();
        assert_eq!(Key(*secret.bytes()).to_string(), text);
        assert_eq!(format!("{secret:?}"), "(hidden)");
        assert!(with(text, 0o400).is_ok());
        for mode in [0o644, 0o640, 0o620, 0o604, 0o666] {
            let e = with(text, mode).unwrap_err().to_string();
            assert!(e.starts_with("port wg0: the private key ") && e.contains(&format!("mode {mode:04o}")), "{e}");
            assert!(e.ends_with(&format!("chmod 600 {}", path.display())), "{e}");
        }
        for (content, why) in
            [("", "not a key"), ("hello", "not a key"), ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=", "all zero")]
        {
            let e = with(content, 0o600).unwrap_err().to_string();
            assert!(e.contains(why) && !e.contains(text), "{e}");
        }
        assert!(read("wg0", "private key", dir.path()).unwrap_err().to_string().contains("not a plain file"));
        assert!(read("wg0", "private key", &dir.path().join("none")).unwrap_err().to_string().contains("No such file"));
    }
}

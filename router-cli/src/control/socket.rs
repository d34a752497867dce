//! The socket file: where it is, who may use it, whose it is when it is already there.

use rustix::fs::{Mode, chmod};
use rustix::net::sockopt::socket_peercred;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Where sockets are by default.
pub const RUN_DIR: &str = "/run/duet";

/// Who may connect, and change things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Permission bits of the socket file.
    pub mode: u32,
    /// Its owner; None leaves the process's.
    pub uid: Option<u32>,
    /// Its group; None leaves the process's.
    pub gid: Option<u32>,
}

impl Default for Access {
    fn default() -> Self {
        Access { mode: 0o660, uid: None, gid: None }
    }
}

/// Why the socket cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Someone listens there already.
    #[error("another duet is running (pid {pid}) and owns {path}")]
    Busy {
        /// Its process id.
        pid: i32,
        /// The socket.
        path: PathBuf,
    },
    /// The path is taken by something else.
    #[error("{0} exists and is not a socket; remove it or set another path with socket = \"PATH\"")]
    NotASocket(PathBuf),
    /// The operating system refused.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Several routers run, and none was named.
    #[error("several routers run here: {0}; say which with -n NAME or --socket PATH")]
    Several(String),
}

impl SocketError {
    pub(super) fn io(what: &'static str, path: &Path, source: impl Into<io::Error>) -> Self {
        SocketError::Io { what, path: path.to_owned(), source: source.into() }
    }
}

/// The socket of the router called `name`.
pub fn default_path(name: &str) -> PathBuf {
    Path::new(RUN_DIR).join(format!("{name}.sock"))
}

/// The socket to talk to: `--socket`, else `-n NAME`, else `DUET_SOCKET`, else the only one in /run/duet, else that of
/// the router called `duet`.
pub fn find_socket(socket: Option<&str>, name: Option<&str>) -> Result<PathBuf, SocketError> {
    if let Some(path) = socket {
        return Ok(path.into());
    }
    if let Some(name) = name {
        return Ok(default_path(name));
    }
    if let Some(path) = std::env::var_os("DUET_SOCKET").filter(|p| !p.is_empty()) {
        return Ok(path.into());
    }
    let mut found: Vec<PathBuf> = std::fs::read_dir(RUN_DIR)
        .into_iter()
        .flatten()
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "sock"))
        .collect();
    found.sort();
    if found.len() > 1 {
        // What a killed router left behind does not count.
        found.retain(|p| !refused(p));
    }
    match found.as_slice() {
        [] => Ok(default_path("duet")),
        [one] => Ok(one.clone()),
        many => {
            let names: Vec<String> =
                many.iter().filter_map(|p| Some(p.file_stem()?.to_string_lossy().into_owned())).collect();
            Err(SocketError::Several(names.join(", ")))
        }
    }
}

/// Names of the routers that have a socket in /run/duet.
pub(crate) fn running_names() -> Vec<String> {
    let files = std::fs::read_dir(RUN_DIR).into_iter().flatten().flatten().map(|e| e.path());
    let sockets = files.filter(|p| p.extension().is_some_and(|e| e == "sock"));
    let mut names: Vec<String> = sockets.filter_map(|p| Some(p.file_stem()?.to_string_lossy().into_owned())).collect();
    names.sort();
    names
}

fn refused(path: &Path) -> bool {
    matches!(UnixStream::connect(path), Err(e) if e.kind() == io::ErrorKind::ConnectionRefused)
}

/// A listener whose file is removed when it is dropped.
#[derive(Debug)]
pub(super) struct Bound {
    pub listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

impl Bound {
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Owner and group of the file.
    pub fn owner(&self) -> io::Result<(u32, u32, u32)> {
        let m = std::fs::metadata(&self.path)?;
        Ok((m.uid(), m.gid(), m.mode() & 0o777))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Not ours any more if somebody replaced it.
        if std::fs::metadata(&self.path).is_ok_and(|m| m.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Whether `path` can be taken: nothing there, or what a killed router left.
pub fn check_free(path: &Path) -> Result<(), SocketError> {
    match std::fs::symlink_metadata(path) {
        Ok(m) if !m.file_type().is_socket() => return Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => match UnixStream::connect(path) {
            Ok(stream) => {
                let pid = socket_peercred(&stream).map_or(0, |c| c.pid.as_raw_nonzero().get());
                return Err(SocketError::Busy { pid, path: path.to_owned() });
            }
            Err(e) if matches!(e.kind(), io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound) => {}
            Err(e) => return Err(SocketError::io("connect to", path, e)),
        },
        Err(_) => {}
    }
    Ok(())
}

/// Binds `path`. A file left by a killed router is replaced; a living router is not disturbed. The socket appears under
/// its name only after owner and mode are set, so that nobody slips in before.
pub(super) fn bind(path: &Path, access: &Access) -> Result<Bound, SocketError> {
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty() && !d.exists()) {
        std::fs::create_dir_all(dir).map_err(|e| SocketError::io("create", dir, e))?;
        chmod(dir, Mode::from_raw_mode(0o755)).map_err(|e| SocketError::io("set the mode of", dir, e))?;
    }
    check_free(path)?;
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary).map_err(|e| SocketError::io("listen on", path, e))?;
    let placed = place(&temporary, path, access);
    if placed.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    placed?;
    let inode = std::fs::metadata(path).map_err(|e| SocketError::io("look at", path, e))?.ino();
    Ok(Bound { listener, path: path.to_owned(), inode })
}

fn place(temporary: &Path, path: &Path, access: &Access) -> Result<(), SocketError> {
    if access.uid.is_some() || access.gid.is_some() {
        std::os::unix::fs::chown(temporary, access.uid, access.gid)
            .map_err(|e| SocketError::io("set the owner of", path, e))?;
    }
    chmod(temporary, Mode::from_raw_mode(access.mode)).map_err(|e| SocketError::io("set the mode of", path, e))?;
    std::fs::rename(temporary, path).map_err(|e| SocketError::io("create", path, e))
}

/// Whether a connected peer may change things: root, the process's own user, the file's owner or group; anyone who got
/// in, if the mode lets in nobody else (a supplementary group does not show in the credentials).
pub(super) fn may_write(stream: &UnixStream, (uid, gid, mode): (u32, u32, u32)) -> bool {
    let Ok(peer) = socket_peercred(stream) else { return false };
    let (peer_uid, peer_gid) = (peer.uid.as_raw(), peer.gid.as_raw());
    peer_uid == 0
        || peer_uid == rustix::process::geteuid().as_raw()
        || peer_uid == uid
        || (peer_gid == gid && mode & 0o020 != 0)
        || mode & 0o007 == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_living_router_and_foreign_files_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub").join("x.sock");
        let first = bind(&path, &Access { mode: 0o600, ..Access::default() }).unwrap();
        assert_eq!(first.owner().unwrap().2, 0o600);
        let busy = bind(&path, &Access::default()).unwrap_err();
        let want = format!("another duet is running (pid {}) and owns {}", std::process::id(), path.display());
        assert_eq!(busy.to_string(), want);
        let plain = dir.path().join("file");
        std::fs::write(&plain, "x").unwrap();
        assert!(matches!(bind(&plain, &Access::default()), Err(SocketError::NotASocket(_))));
    }

    #[test]
    fn a_socket_without_listener_is_stale() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let bound = bind(&path, &Access::default()).unwrap();
        assert!(UnixStream::connect(&path).is_ok());
        drop(bound);
        assert!(!path.exists());
    }
}

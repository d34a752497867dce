//! Packets of a capture on their way to a client.

use super::lines::write_all;
use super::{Answer, Body, CapturePage, PacketFeed, Reply, WireError};
use rustix::event::{PollFd, PollFlags, poll};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// Packets per page of a capture.
const PACKETS: usize = 128;
/// How long a capture looks away when there is nothing: its queue is deep enough for that.
const NAP: rustix::event::Timespec = rustix::event::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
/// A sign of life to a client that waits for packets that do not come.
const SIGN: Duration = Duration::from_secs(10);
/// Time that a capturing client may take for one page; meanwhile it loses packets.
const CAPTURER: Duration = Duration::from_secs(300);

/// Streams packets until the client says something more, or goes.
pub(super) fn capture(
    stream: &UnixStream,
    id: u64,
    feed: Result<Box<dyn PacketFeed>, WireError>,
    patience: Duration,
    stopping: &dyn Fn() -> bool,
) -> std::io::Result<()> {
    let mut feed = match feed {
        Ok(feed) => feed,
        Err(e) => return send(stream, &Reply::new(id, Body::Error(e)), patience),
    };
    // Whoever has this line knows that from now on packets are captured.
    send(stream, &Reply::new(id, Body::Page(Answer::Capture(CapturePage::default()))), patience)?;
    let mut sign = std::time::Instant::now();
    loop {
        let page = feed.take(PACKETS);
        let empty = page.packets.is_empty();
        let nap = if empty { NAP } else { rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 } };
        let mut fds = [PollFd::new(stream, PollFlags::IN | PollFlags::RDHUP)];
        match poll(&mut fds, Some(&nap)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let said = fds[0].revents();
        if said.contains(PollFlags::HUP) || said.contains(PollFlags::ERR) {
            return Err(std::io::ErrorKind::BrokenPipe.into());
        }
        // A client that has shut down its sending half, or says anything, wants no more but the end.
        let over = said.intersects(PollFlags::IN | PollFlags::RDHUP) || stopping();
        if over {
            return end_capture(stream, id, &mut *feed, page, patience);
        }
        if !empty || sign.elapsed() >= SIGN {
            sign = std::time::Instant::now();
            send(stream, &Reply::new(id, Body::Page(Answer::Capture(page))), CAPTURER)?;
        }
    }
}

/// Sends what has come until now, and the end.
fn end_capture(
    stream: &UnixStream,
    id: u64,
    feed: &mut dyn PacketFeed,
    mut page: CapturePage,
    patience: Duration,
) -> std::io::Result<()> {
    // Bounded: packets go on coming.
    for _ in 0..1024 {
        let next = feed.take(PACKETS);
        if next.packets.is_empty() {
            break;
        }
        send(stream, &Reply::new(id, Body::Page(Answer::Capture(page))), patience)?;
        page = next;
    }
    send(stream, &Reply::new(id, Body::Ok(Answer::Capture(page))), patience)
}

fn send(stream: &UnixStream, reply: &Reply, time: Duration) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(reply)?;
    line.push(b'\n');
    write_all(stream, &line, time)
}

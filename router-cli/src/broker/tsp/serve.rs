//! The sockets of the protocol, with their limits.

use super::session::{Next, Talk};
use super::wire::{HEADER, split};
use crate::broker::http::Web;
use crate::broker::limit::{Buckets, peer};
use crate::broker::stats::Count;
use router_io::port::udp::signals::Signal;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex as Lock, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore, mpsc};

/// Connections at once.
const CONNECTIONS: usize = 256;
/// Conversations over UDP at once.
const CONVERSATIONS: usize = 1024;
/// How long one may take: setting a tunnel up takes a second.
const TIME: Duration = Duration::from_secs(60);
/// How long the client may say nothing.
const IDLE: Duration = Duration::from_secs(20);

struct Conversation {
    talk: Talk,
    /// The last message's header and the answer to it, for repetitions.
    last: Option<([u8; 4], Vec<u8>)>,
}

/// Conversations over UDP by peer, with the time of their first message.
type Conversations = HashMap<SocketAddr, (Instant, Arc<Mutex<Conversation>>)>;

/// What both transports share.
pub struct Desk {
    web: Arc<Web>,
    tcp: Arc<Semaphore>,
    /// Messages by peer.
    rate: Buckets<IpAddr>,
    udp: Lock<Conversations>,
}

impl Desk {
    /// For this broker.
    pub fn new(web: Arc<Web>) -> Self {
        Desk { web, tcp: Arc::new(Semaphore::new(CONNECTIONS)), rate: Buckets::new(4.0, 24.0), udp: Lock::default() }
    }

    /// Whether a message or connection of this peer is one too many.
    fn takes(&self, from: SocketAddr) -> bool {
        let takes = self.rate.take(peer(from.ip()), Instant::now());
        if !takes {
            self.web.service.stats.tsp_rate.one();
        }
        takes
    }

    /// A place among the messages that are being answered.
    fn place(&self, busy: &Arc<Semaphore>) -> Option<OwnedSemaphorePermit> {
        let stats = &self.web.service.stats;
        let place = Arc::clone(busy).try_acquire_owned().ok();
        if place.is_some() {
            stats.tsp_datagrams.one()
        } else {
            stats.tsp_busy.one()
        }
        place
    }

    /// The conversation with this peer; None: there are too many.
    fn conversation(&self, from: SocketAddr, first: bool) -> Option<Arc<Mutex<Conversation>>> {
        let mut table = self.udp.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let old = |at: Instant| now.saturating_duration_since(at) >= TIME;
        if first || table.get(&from).is_some_and(|(at, _)| old(*at)) {
            table.remove(&from);
        }
        if !first && !table.contains_key(&from) {
            return None;
        }
        if table.len() >= CONVERSATIONS {
            table.retain(|_, (at, _)| !old(*at));
            if table.len() >= CONVERSATIONS && !table.contains_key(&from) {
                self.web.service.stats.tsp_full.one();
                return None;
            }
        }
        let entry = table
            .entry(from)
            .or_insert_with(|| (now, Arc::new(Mutex::new(Conversation { talk: Talk::new(from, true), last: None }))));
        Some(Arc::clone(&entry.1))
    }

    fn forget(&self, from: SocketAddr) {
        self.udp.lock().unwrap_or_else(PoisonError::into_inner).remove(&from);
    }

    /// One datagram; gives the answer, if it deserves one.
    pub async fn datagram(&self, from: SocketAddr, datagram: &[u8]) -> Option<Vec<u8>> {
        let (header, body) = split(datagram)?;
        let number = [header[0], header[1], header[2], header[3]];
        let begins = body.starts_with(b"VERSION=");
        // A repeated first message belongs to the conversation that it began.
        let repeated = {
            let table = self.udp.lock().unwrap_or_else(PoisonError::into_inner);
            table.get(&from).map(|(_, c)| Arc::clone(c))
        };
        if let Some(c) = repeated
            && let Some((last, answer)) = &c.lock().await.last
            && *last == number
        {
            return Some([header.as_slice(), answer].concat());
        }
        let conversation = self.conversation(from, begins)?;
        let mut c = conversation.lock().await;
        let (answer, next) = c.talk.feed(body, &self.web).await;
        c.last = Some((number, answer.clone()));
        if next == Next::End {
            self.forget(from);
        }
        // The client's own number and time stamp come back: so it knows which message is answered.
        (!answer.is_empty()).then(|| [header.as_slice(), &answer].concat())
    }
}

/// Puts a message in the queue of [`serve_signals`], or counts that it is lost: a worker does not wait.
pub fn enqueue<T>(queue: &mpsc::Sender<T>, message: T, lost: &Count) {
    if queue.try_send(message).is_err() {
        lost.one();
    }
}

/// The same for those that a `udp` port of the router hands over, because tunnels have the same port.
pub async fn serve_signals(mut signals: mpsc::Receiver<Signal>, desk: Arc<Desk>) {
    let busy = Arc::new(Semaphore::new(64));
    while let Some(signal) = signals.recv().await {
        if signal.bytes.len() < HEADER || !desk.takes(signal.from) {
            continue;
        }
        let Some(permit) = desk.place(&busy) else { continue };
        let desk = Arc::clone(&desk);
        tokio::spawn(async move {
            if let Some(answer) = desk.datagram(signal.from, &signal.bytes).await {
                let _ = signal.answer(&answer);
            }
            drop(permit);
        });
    }
}

/// Answers datagrams until the runtime ends.
pub async fn serve_udp(socket: UdpSocket, desk: Arc<Desk>) {
    let socket = Arc::new(socket);
    let busy = Arc::new(Semaphore::new(64));
    let mut buffer = [0u8; 10_000];
    loop {
        let Ok((n, from)) = socket.recv_from(&mut buffer).await else {
            // An ICMP error about an earlier answer: no news.
            tokio::task::yield_now().await;
            continue;
        };
        if n < HEADER || !desk.takes(from) {
            continue;
        }
        let Some(permit) = desk.place(&busy) else { continue };
        let (datagram, desk, socket) = (buffer[..n].to_vec(), Arc::clone(&desk), Arc::clone(&socket));
        tokio::spawn(async move {
            if let Some(answer) = desk.datagram(from, &datagram).await {
                let _ = socket.send_to(&answer, from).await;
            }
            drop(permit);
        });
    }
}

/// Accepts connections until the runtime ends.
pub async fn serve_tcp(listener: TcpListener, desk: Arc<Desk>) {
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        if !desk.takes(from) {
            continue;
        }
        let stats = &desk.web.service.stats;
        let Ok(permit) = Arc::clone(&desk.tcp).try_acquire_owned() else {
            stats.tsp_full.one();
            continue;
        };
        stats.tsp_connections.one();
        let web = Arc::clone(&desk.web);
        tokio::spawn(async move {
            let _ = tokio::time::timeout(TIME, talk(stream, from, &web)).await;
            drop(permit);
        });
    }
}

async fn talk(mut stream: TcpStream, from: SocketAddr, web: &Arc<Web>) -> std::io::Result<()> {
    let _ = stream.set_nodelay(true);
    let mut talk = Talk::new(from, false);
    let mut buffer = [0u8; 2048];
    loop {
        let n = match tokio::time::timeout(IDLE, stream.read(&mut buffer)).await {
            Ok(n) => n?,
            Err(_) => return Ok(()),
        };
        if n == 0 {
            return Ok(());
        }
        let (answer, next) = talk.feed(&buffer[..n], web).await;
        stream.write_all(&answer).await?;
        if next == Next::End {
            return stream.shutdown().await;
        }
    }
}

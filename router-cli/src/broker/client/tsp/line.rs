//! How messages of the tunnel set-up protocol travel: by TCP; by UDP with RFC 5572's header, which says what is answered, and
//! repeated until it is. Over UDP through a socket of its own, or through that of the router's `udp` port whose tunnel it is
//! about: then a NAT gives both one binding.

use crate::broker::tsp::wire::{HEADER, split};
use rand::RngExt;
use router_io::port::udp::signals;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// For connecting, and for one answer by TCP.
const PATIENCE: Duration = Duration::from_secs(8);
/// How long to wait for an answer by UDP until the message is repeated: the last one is when to give up.
const REPEAT: [Duration; 4] =
    [Duration::from_millis(600), Duration::from_millis(1200), Duration::from_millis(2400), Duration::from_millis(2400)];
/// Longest datagram.
const LONGEST: usize = 10_000;
/// Answers of the peer that wait to be looked at; what is beyond is lost, as in the network.
const WAITING: usize = 16;

/// A way to the server.
pub trait Line {
    /// Sends a message.
    ///
    /// # Errors
    /// The network's.
    fn say(&mut self, message: &[u8]) -> io::Result<()>;

    /// Sends a message that is not answered.
    ///
    /// # Errors
    /// The network's.
    fn tell(&mut self, message: &[u8]) -> io::Result<()>;

    /// More bytes of the answer.
    ///
    /// # Errors
    /// The network's; [`io::ErrorKind::TimedOut`], [`io::ErrorKind::UnexpectedEof`] when there is no more.
    fn hear(&mut self) -> io::Result<Vec<u8>>;

    /// Whether each message is one datagram.
    fn datagrams(&self) -> bool;
}

/// By TCP.
#[derive(Debug)]
pub struct Tcp {
    stream: TcpStream,
    until: Instant,
}

impl Tcp {
    /// Connects; our own address, too. All of the conversation must be over after `most`.
    ///
    /// # Errors
    /// The network's.
    pub fn open(to: SocketAddr, from: Option<IpAddr>, most: Duration) -> io::Result<(Tcp, IpAddr)> {
        let stream = match from {
            None => TcpStream::connect_timeout(&to, PATIENCE)?,
            Some(from) => {
                let domain = socket2::Domain::for_address(to);
                let socket = socket2::Socket::new(domain, socket2::Type::STREAM, None)?;
                socket.bind(&SocketAddr::new(from, 0).into())?;
                socket.connect_timeout(&to.into(), PATIENCE)?;
                socket.into()
            }
        };
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let own = stream.local_addr()?.ip();
        Ok((Tcp { stream, until: Instant::now() + most }, own))
    }
}

impl Line for Tcp {
    fn say(&mut self, message: &[u8]) -> io::Result<()> {
        self.stream.write_all(message)
    }

    fn tell(&mut self, message: &[u8]) -> io::Result<()> {
        self.say(message)
    }

    fn hear(&mut self) -> io::Result<Vec<u8>> {
        let left = self.until.saturating_duration_since(Instant::now()).min(PATIENCE);
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.stream.set_read_timeout(Some(left))?;
        let mut buffer = vec![0; 2048];
        match self.stream.read(&mut buffer) {
            Ok(0) => Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(n) => {
                buffer.truncate(n);
                Ok(buffer)
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(io::ErrorKind::TimedOut.into()),
            Err(e) => Err(e),
        }
    }

    fn datagrams(&self) -> bool {
        false
    }
}

/// Any address of the family of `to`.
pub(super) fn unspecified(to: SocketAddr) -> IpAddr {
    if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() }
}

/// Where datagrams leave and arrive.
enum Socket {
    Own(UdpSocket),
    /// A `udp` port of the router.
    Port {
        /// Its name.
        name: String,
        /// Its UDP port.
        number: u16,
        /// The server.
        to: SocketAddr,
        /// What came from there, as long as that is claimed.
        came: Receiver<Vec<u8>>,
        _claim: signals::Claimed,
    },
}

/// By UDP.
pub struct Udp {
    socket: Socket,
    /// The number of the message under way.
    number: u32,
    stamp: u32,
    /// The message under way until it is answered.
    open: Option<Vec<u8>>,
}

impl Udp {
    fn of(socket: Socket) -> Udp {
        // Numbers that nobody can guess who does not read the packets.
        let (number, stamp): (u32, u32) = rand::rng().random();
        Udp { socket, number: number & 0x0fff_ffff, stamp, open: None }
    }

    /// With a socket of its own, from this port if it is free; our own address and port.
    ///
    /// # Errors
    /// The network's.
    pub fn open(to: SocketAddr, from: Option<IpAddr>, port: Option<u16>) -> io::Result<(Udp, SocketAddr)> {
        let from = from.unwrap_or(unspecified(to));
        let first = port.and_then(|p| UdpSocket::bind((from, p)).ok());
        let socket = first.map_or_else(|| UdpSocket::bind((from, 0)), Ok)?;
        socket.connect(to)?;
        let own = socket.local_addr()?;
        Ok((Udp::of(Socket::Own(socket)), own))
    }

    /// Through the router's port `name`, from its UDP port `number`.
    pub fn through(name: &str, number: u16, to: SocketAddr) -> Udp {
        let (tx, came) = sync_channel(WAITING);
        let heard = move |s: signals::Signal| drop(tx.try_send(s.bytes));
        let claim = signals::claim_from((unspecified(to), number).into(), to, heard);
        Udp::of(Socket::Port { name: name.to_owned(), number, to, came, _claim: claim })
    }

    fn send(&self, bytes: &[u8]) -> io::Result<()> {
        match &self.socket {
            Socket::Own(socket) => socket.send(bytes).map(|_| ()),
            Socket::Port { name, number, to, .. } => signals::send(name, *number, *to, bytes),
        }
    }

    fn receive(&self, wait: Duration) -> io::Result<Option<Vec<u8>>> {
        if wait.is_zero() {
            return Ok(None);
        }
        match &self.socket {
            Socket::Own(socket) => {
                socket.set_read_timeout(Some(wait))?;
                let mut buffer = vec![0; LONGEST];
                match socket.recv(&mut buffer) {
                    Ok(n) => {
                        buffer.truncate(n);
                        Ok(Some(buffer))
                    }
                    Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => Ok(None),
                    Err(e) => Err(e),
                }
            }
            Socket::Port { came, .. } => match came.recv_timeout(wait) {
                Ok(bytes) => Ok(Some(bytes)),
                Err(RecvTimeoutError::Timeout) => Ok(None),
                Err(RecvTimeoutError::Disconnected) => Err(io::ErrorKind::NotConnected.into()),
            },
        }
    }

    fn framed(&mut self, message: &[u8]) -> Vec<u8> {
        self.number = (self.number + 1) & 0x0fff_ffff;
        [&(0xf000_0000 | self.number).to_be_bytes()[..], &self.stamp.to_be_bytes(), message].concat()
    }
}

impl Line for Udp {
    fn say(&mut self, message: &[u8]) -> io::Result<()> {
        let framed = self.framed(message);
        self.send(&framed)?;
        self.open = Some(framed);
        Ok(())
    }

    fn tell(&mut self, message: &[u8]) -> io::Result<()> {
        let framed = self.framed(message);
        self.send(&framed)
    }

    fn hear(&mut self) -> io::Result<Vec<u8>> {
        // One datagram is all of an answer.
        let message = self.open.take().ok_or(io::ErrorKind::UnexpectedEof)?;
        for (i, wait) in REPEAT.iter().enumerate() {
            if i > 0 {
                self.send(&message)?;
            }
            let until = Instant::now() + *wait;
            // Somebody else's, or the answer to an earlier message: passed over.
            while let Some(mut bytes) = self.receive(until.saturating_duration_since(Instant::now()))? {
                if split(&bytes).is_some_and(|(header, _)| *header == message[..HEADER]) {
                    return Ok(bytes.split_off(HEADER));
                }
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    fn datagrams(&self) -> bool {
        true
    }
}

//! The XDP program of a port: every frame to the AF_XDP sockets.

use super::insn::{Code, Helper, Op, R1, R2, R3, Size};
use super::{LoadError, Program, XskMap};
use std::os::fd::AsRawFd;

/// The frame goes on to the kernel's own stack (`enum xdp_action`).
const XDP_PASS: i32 = 2;
/// Offset in `struct xdp_md`.
const RX_QUEUE_INDEX: i16 = 16;

impl Program {
    /// Frames go to the socket that `map` has for their receive queue; those of queues without one to the kernel.
    pub fn redirect(map: &XskMap) -> Result<Self, LoadError> {
        let mut code = Code::new();
        code.load(Size::W, R2, R1, RX_QUEUE_INDEX).map(R1, map.fd.as_raw_fd());
        // The low bits of the flags are what the helper returns when the map has no socket.
        code.imm(Op::Mov, R3, XDP_PASS).call(Helper::RedirectMap).exit();
        Program::load("duet_port", &code.finish())
    }
}

#[cfg(test)]
mod tests {
    use super::super::insn::R0;
    use super::*;

    /// None, said, where this process may not make maps.
    fn map() -> Option<XskMap> {
        match XskMap::new(2) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
                eprintln!("SKIPPED: bpf(2): {e}");
                None
            }
            other => Some(other.expect("bpf(2)")),
        }
    }

    #[test]
    fn without_a_socket_frames_go_to_the_kernel() {
        let Some(map) = map() else { return };
        assert_eq!(Program::redirect(&map).unwrap().test_run(&[0; 64]).unwrap(), XDP_PASS as u32);
    }

    #[test]
    fn a_refused_program_comes_with_the_verifiers_words() {
        if map().is_some() {
            // R3 holds nothing when the program starts.
            let mut code = Code::new();
            code.load(Size::W, R0, R3, 0).exit();
            let e = Program::load("test", &code.finish()).unwrap_err();
            assert!(e.log.contains("R3"), "{e}");
            assert!(e.into_io().to_string().contains("R3"));
        }
    }
}

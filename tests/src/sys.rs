//! The only unsafe code of this package: giving a network card its address.
#![allow(unsafe_code, reason = "ioctls on network interfaces have no safe form in the crates that we use")]

use std::io;
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

/// Gives an interface its address and sets it up (netdevice(7)).
///
/// # Errors
/// There is no such interface, or this is not root.
pub fn set_up_interface(name: &str, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
    let socket = std::net::UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    let mask = Ipv4Addr::from_bits(u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0));
    for (request, value) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, mask)] {
        let mut interface = request_for(name)?;
        let [a, b, c, d] = value.octets();
        let family = libc::sa_family_t::try_from(libc::AF_INET).map_err(io::Error::other)?;
        interface.ifr_ifru.ifru_addr = libc::sockaddr { sa_family: family, sa_data: [0; 14] };
        for (to, from) in
            // SAFETY: the address was written just above, and every bit pattern is one.
            unsafe { &mut interface.ifr_ifru.ifru_addr.sa_data }.iter_mut().skip(2).zip([a, b, c, d])
        {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        ioctl(&socket, request, &mut interface)?;
    }
    let mut interface = request_for(name)?;
    interface.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).map_err(io::Error::other)?;
    ioctl(&socket, libc::SIOCSIFFLAGS, &mut interface)
}

fn request_for(name: &str) -> io::Result<libc::ifreq> {
    // SAFETY: an ifreq is plain data, for which all zeros is a value.
    let mut interface: libc::ifreq = unsafe { core::mem::zeroed() };
    if name.len() >= interface.ifr_name.len() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    for (to, from) in interface.ifr_name.iter_mut().zip(name.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
    Ok(interface)
}

fn ioctl(socket: &impl AsRawFd, request: libc::c_ulong, interface: &mut libc::ifreq) -> io::Result<()> {
    #[allow(clippy::useless_conversion, reason = "musl and glibc differ in the type of a request")]
    let request = libc::Ioctl::try_from(request).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open, and these requests read and write one ifreq.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, core::ptr::from_mut(interface)) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

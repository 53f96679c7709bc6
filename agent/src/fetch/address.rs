//! Which addresses may be connected to.
//!
//! Crawls and visits follow what strangers write. Without this a page could make them read what only this machine can
//! reach: loopback services, the local network, a cloud's metadata. Hosts written as addresses are checked before each
//! request; names are checked by the resolver that the connection itself uses, so no second look-up can differ.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// How names become addresses.
#[async_trait]
pub trait Lookup: Send + Sync + std::fmt::Debug {
    /// The addresses of a host.
    ///
    /// # Errors
    /// The name has none, or nobody answers.
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// The system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((host, 0)).await?.map(|at| at.ip()).collect())
    }
}

/// The addresses that may be connected to.
#[derive(Debug, Clone)]
pub(super) struct Addresses {
    /// Any address.
    pub(super) any: bool,
    /// Addresses allowed though they are not public.
    pub(super) listed: Vec<IpAddr>,
    /// Who resolves names.
    pub(super) names: Arc<dyn Lookup>,
}

impl Addresses {
    /// Whether `address` may be connected to.
    pub(super) fn allow(&self, address: IpAddr) -> bool {
        self.any || self.listed.contains(&address.to_canonical()) || is_public(address)
    }

    /// Checks a host written as an address. Names pass: the resolver checks them.
    ///
    /// # Errors
    /// The address is not allowed.
    pub(super) fn check(&self, url: &Url) -> Result<(), Forbidden> {
        let address = match url.host() {
            Some(Host::Ipv4(address)) => IpAddr::V4(address),
            Some(Host::Ipv6(address)) => IpAddr::V6(address),
            _ => return Ok(()),
        };
        if self.allow(address) { Ok(()) } else { Err(Forbidden { name: None, address }) }
    }
}

/// An address that may not be connected to.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}{address} is not a public address", name.as_ref().map(|name| format!("{name} is at {address}, and ")).unwrap_or_default())]
pub(super) struct Forbidden {
    /// The name that resolved to it, where there was one.
    pub(super) name: Option<String>,
    /// The address.
    pub(super) address: IpAddr,
}

impl Resolve for Addresses {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.clone();
        Box::pin(async move {
            let host = name.as_str().to_string();
            let found = addresses.names.lookup(&host).await?;
            let (allowed, refused): (Vec<_>, Vec<_>) = found.into_iter().partition(|at| addresses.allow(*at));
            match refused.first() {
                Some(at) if allowed.is_empty() => Err(Forbidden { name: Some(host), address: *at }.into()),
                _ => Ok(Box::new(allowed.into_iter().map(|at| SocketAddr::new(at, 0))) as Addrs),
            }
        })
    }
}

/// Whether an address is reachable by everybody (IANA special-purpose address registries, RFC 6890).
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127, _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18..=19, _)
            | (198, 51, 100)
            | (203, 0, 113)
            | (224..=255, _, _)
    )
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    let embedded = |high: u16, low: u16| is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match segments {
        // IPv4-mapped.
        [0, 0, 0, 0, 0, 0xffff, high, low] => embedded(high, low),
        // NAT64, RFC 6052.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => embedded(high, low),
        // 6to4, RFC 3056.
        [0x2002, high, low, ..] => embedded(high, low),
        // Protocol assignments with Teredo, documentation.
        [0x2001, 0..=0x01ff, ..] | [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => false,
        // Global unicast; everything else is local, reserved or multicast.
        [0x2000..=0x3fff, ..] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_public() {
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450::1",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for private in [
            "0.0.0.0",
            "10.1.2.3",
            "127.0.0.1",
            "127.255.0.9",
            "100.64.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.8",
            "192.0.2.1",
            "192.88.99.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.51.100.7",
            "203.0.113.9",
            "224.0.0.1",
            "239.1.1.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::7f00:1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "3fff::1",
            "fc00::1",
            "fdff::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(private.parse().unwrap()), "{private}");
        }
    }

    #[test]
    fn spellings_of_loopback_in_urls_are_seen_through() {
        let none = Addresses { any: false, listed: Vec::new(), names: Arc::new(SystemLookup) };
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://127.1/",
            "http://[::1]/",
            "http://[::ffff:7f00:1]/",
        ] {
            assert!(none.check(&Url::parse(url).unwrap()).is_err(), "{url}");
        }
        assert!(none.check(&Url::parse("http://93.184.216.34/").unwrap()).is_ok());
        let listed = Addresses { listed: vec!["127.0.0.1".parse().unwrap()], ..none };
        assert!(listed.check(&Url::parse("http://127.0.0.1/").unwrap()).is_ok());
        assert!(listed.check(&Url::parse("http://127.0.0.2/").unwrap()).is_err());
    }
}

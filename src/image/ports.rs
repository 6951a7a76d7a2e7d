//! Ports of the host that lead into a container, in Docker's form, as pasta(1) takes them.

use std::net::IpAddr;

/// `[ADDRESS:]PORT:PORT[/tcp|/udp]`, ranges as FIRST-LAST, as pasta's option and its value.
pub(super) fn parse(text: &str) -> Result<[String; 2], String> {
    let bad = |why: &str| format!("{why}; write [ADDRESS:]HOSTPORT:PORT[/udp]");
    let (ports, protocol) = text.rsplit_once('/').unwrap_or((text, "tcp"));
    let option = match protocol {
        "tcp" => "-t",
        "udp" => "-u",
        _ => return Err(bad("the protocols are tcp and udp")),
    };
    let Some((before, inside)) = ports.rsplit_once(':') else {
        return Err(bad("no port of the host is named"));
    };
    let (address, outside) = before.rsplit_once(':').map_or((None, before), |(a, o)| (Some(a), o));
    let (inside, outside) = (range(inside), range(outside));
    let (Some(inside), Some(outside)) = (inside, outside) else {
        return Err(bad("ports are from 1 to 65535"));
    };
    if inside.1 - inside.0 != outside.1 - outside.0 {
        return Err(bad("the two ranges differ in length"));
    }
    let ports = format!("{}-{}:{}-{}", outside.0, outside.1, inside.0, inside.1);
    let Some(address) = address else { return Ok([option.into(), ports]) };
    let address = address.trim_start_matches('[').trim_end_matches(']');
    match address.parse::<IpAddr>() {
        Ok(address) => Ok([option.into(), format!("{address}/{ports}")]),
        Err(_) => Err(bad("the address is none")),
    }
}

fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |t: &str| t.parse::<u16>().ok().filter(|n| *n > 0 && t.bytes().all(|b| b.is_ascii_digit()));
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_as_docker_writes_them() {
        let of = |text: &str| parse(text).map(|o| o.join(" "));
        assert_eq!(of("8080:80").as_deref(), Ok("-t 8080-8080:80-80"));
        assert_eq!(of("127.0.0.1:53:53/udp").as_deref(), Ok("-u 127.0.0.1/53-53:53-53"));
        assert_eq!(of("[::1]:8000-8010:80-90/tcp").as_deref(), Ok("-t ::1/8000-8010:80-90"));
        for bad in [
            "80",
            "",
            ":",
            "0:80",
            "80:65536",
            "8-9:8",
            "9-8:9-8",
            "x:1:1",
            "1:1/sctp",
            "+1:1",
            "1:1,all",
            "127.0.0.1/1:1",
        ] {
            assert!(of(bad).is_err(), "{bad:?}");
        }
    }
}

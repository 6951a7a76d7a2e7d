use super::*;

/// A ustar header block with a right checksum.
pub(crate) fn header(name: &[u8], flag: u8, size: u64, target: &[u8]) -> Vec<u8> {
    let mut b = vec![0u8; 512];
    b[..name.len().min(100)].copy_from_slice(&name[..name.len().min(100)]);
    b[100..107].copy_from_slice(b"0000644");
    b[108..115].copy_from_slice(b"0000000");
    b[116..123].copy_from_slice(b"0000000");
    b[124..135].copy_from_slice(format!("{size:011o}").as_bytes());
    b[136..147].copy_from_slice(b"00000000017");
    b[156] = flag;
    b[157..157 + target.len()].copy_from_slice(target);
    b[257..265].copy_from_slice(b"ustar\x0000");
    sign(&mut b);
    b
}

fn sign(b: &mut [u8]) {
    b[148..156].fill(b' ');
    let sum: u32 = b.iter().map(|&x| u32::from(x)).sum();
    b[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

fn padded(data: &[u8]) -> Vec<u8> {
    let mut v = data.to_vec();
    v.resize(data.len().next_multiple_of(512), 0);
    v
}

fn pax(flag: u8, records: &[(&str, &str)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (k, v) in records {
        let rest = format!(" {k}={v}\n");
        let mut n = rest.len() + 1;
        while n.to_string().len() + rest.len() != n {
            n += 1;
        }
        body.extend_from_slice(format!("{n}{rest}").as_bytes());
    }
    [header(b"pax", flag, body.len() as u64, b""), padded(&body)].concat()
}

fn file(name: &[u8], data: &[u8]) -> Vec<u8> {
    [header(name, b'0', data.len() as u64, b""), padded(data)].concat()
}

fn read(parts: &[Vec<u8>]) -> Result<Vec<(Entry, Vec<u8>)>> {
    let bytes = parts.concat();
    let mut reader = Reader::new(&bytes[..], &Limits::default());
    let mut all = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut data = Vec::new();
        loop {
            let piece = reader.data()?.to_vec();
            if piece.is_empty() {
                break;
            }
            reader.consume(piece.len());
            data.extend(piece);
        }
        all.push((entry, data));
    }
    Ok(all)
}

fn end() -> Vec<u8> {
    vec![0; 1024]
}

#[test]
fn a_plain_file() {
    let all = read(&[file(b"a/b", b"hello"), end()]).unwrap();
    assert_eq!(all.len(), 1);
    let (e, data) = &all[0];
    assert_eq!(
        (e.path.as_slice(), e.mode, e.size, e.mtime, data.as_slice()),
        (&b"a/b"[..], 0o644, 5, (15, 0), &b"hello"[..])
    );
}

#[test]
fn pax_wins_over_ustar_and_size_too() {
    // RUSTSEC-2026-0068: the ustar size says 0, PAX says 512: whoever ignores PAX reads the data as a header.
    let smuggled = header(b"evil", b'0', 0, b"");
    let all = read(&[
        pax(b'x', &[("path", "long"), ("size", "512"), ("mtime", "-1.25"), ("uid", "70000")]),
        header(b"short", b'0', 0, b""),
        smuggled,
        end(),
    ])
    .unwrap();
    assert_eq!(all.len(), 1);
    assert_eq!(
        (all[0].0.path.as_slice(), all[0].1.len(), all[0].0.mtime, all[0].0.uid),
        (&b"long"[..], 512, (-2, 750_000_000), 70000)
    );
}

#[test]
fn gnu_long_names() {
    let name = [b'n'; 300];
    let long = [header(b"././@LongLink", b'L', 301, b""), padded(&[&name[..], b"\0"].concat())].concat();
    let all = read(&[long, file(b"nnn", b"x"), end()]).unwrap();
    assert_eq!(all[0].0.path, name);
}

#[test]
fn a_global_header_is_passed_over() {
    let all = read(&[pax(b'g', &[("comment", "0123")]), file(b"f", b""), end()]).unwrap();
    assert_eq!(all.len(), 1);
    assert!(read(&[pax(b'g', &[("path", "other")]), file(b"f", b""), end()]).is_err());
}

#[test]
fn where_readers_disagree_it_is_refused() {
    let long = [header(b"././@LongLink", b'L', 2, b""), padded(b"a\0")].concat();
    let x = pax(b'x', &[("path", "b")]);
    let f = file(b"f", b"");
    assert!(read(&[long.clone(), x.clone(), f.clone(), end()]).is_err(), "two names");
    assert!(read(&[x.clone(), x.clone(), f.clone(), end()]).is_err(), "two PAX headers");
    assert!(read(&[x, end()]).is_err(), "a PAX header for nothing");
    assert!(read(&[vec![0; 512], f.clone(), end()]).is_err(), "entries behind zeros");
    for flag in [b'1', b'2', b'3', b'5', b'6'] {
        assert!(
            read(&[header(b"d", flag, 512, b"t"), vec![1; 512], end()]).is_err(),
            "data behind type {flag}"
        );
    }
    assert!(read(&[header(b"d", b'V', 0, b""), end()]).is_err(), "unknown type");
    assert!(read(&[header(b"", b'0', 0, b""), end()]).is_err(), "empty name");
    assert!(read(&[pax(b'x', &[("path", "a\0b")]), f.clone(), end()]).is_err(), "NUL in a name");
    for bad in ["-1", "9223372036854775808", "1e3", " 5", "0x5"] {
        assert!(read(&[pax(b'x', &[("size", bad)]), f.clone(), end()]).is_err(), "size {bad}");
    }
    for malformed in [&b"5 a=b\n"[..], b"6 a=bc", b"99 a=b\n", b"4 =b\n", b"abc", b"6 abcd\n"] {
        let x = [header(b"pax", b'x', malformed.len() as u64, b""), padded(malformed)].concat();
        assert!(read(&[x, f.clone(), end()]).is_err(), "{}", malformed.escape_ascii());
    }
    let mut broken = f.clone();
    broken[0] ^= 1;
    assert!(read(&[broken, end()]).is_err(), "checksum");
}

#[test]
fn negative_and_huge_numbers() {
    let mut h = header(b"f", b'0', 0, b"");
    h[124..136].fill(0xff);
    sign(&mut h);
    assert!(read(&[h, end()]).is_err(), "size -1");
    let mut h = header(b"f", b'0', 0, b"");
    h[136..148].fill(0xff);
    sign(&mut h);
    assert_eq!(read(&[h, end()]).unwrap()[0].0.mtime, (-1, 0));
    assert!(read(&[pax(b'x', &[("uid", "4294967295")]), file(b"f", b""), end()]).is_err());
}

#[test]
fn every_truncation_is_an_error_or_a_whole_prefix() {
    let whole = [pax(b'x', &[("path", "p")]), file(b"f", &[7; 700]), file(b"g", b""), end()].concat();
    for n in 0..whole.len() {
        if let Ok(all) = read(&[whole[..n].to_vec()]) {
            assert!(all.iter().all(|(e, d)| e.size == d.len() as u64), "cut at {n}");
        }
    }
}

#[test]
fn sparse_forms_agree() {
    let map = padded(b"2\n0\n3\n1000\n4\n");
    let one = [
        pax(
            b'x',
            &[
                ("GNU.sparse.major", "1"),
                ("GNU.sparse.minor", "0"),
                ("GNU.sparse.name", "s"),
                ("GNU.sparse.realsize", "2000"),
            ],
        ),
        header(b"GNUSparseFile.0/s", b'0', 519, b""),
        map,
        padded(b"abcdefg"),
    ]
    .concat();
    let list = [
        pax(
            b'x',
            &[("GNU.sparse.size", "2000"), ("GNU.sparse.numblocks", "2"), ("GNU.sparse.map", "0,3,1000,4")],
        ),
        file(b"s", b"abcdefg"),
    ]
    .concat();
    let mut old = header(b"s", b'S', 7, b"");
    old[257..265].copy_from_slice(b"ustar  \0");
    for (at, n) in [(386, 0), (398, 3), (410, 1000), (422, 4), (483, 2000)] {
        old[at..at + 11].copy_from_slice(format!("{n:011o}").as_bytes());
    }
    sign(&mut old);
    for form in [one, list, [old, padded(b"abcdefg")].concat()] {
        let all = read(&[form, end()]).unwrap();
        assert_eq!(
            (all[0].0.path.as_slice(), all[0].0.size, all[0].1.as_slice()),
            (&b"s"[..], 2000, &b"abcdefg"[..])
        );
        assert_eq!(all[0].0.sparse, Some(vec![(0, 3), (1000, 4)]));
    }
}

#[test]
fn sparse_maps_that_lie() {
    let with = |map: &str, size: &str| {
        read(&[
            pax(b'x', &[("GNU.sparse.size", size), ("GNU.sparse.map", map)]),
            file(b"s", b"abcdefg"),
            end(),
        ])
    };
    assert!(with("0,3,1000,4", "2000").is_ok());
    for (map, size) in [
        ("0,3,2,4", "2000"),
        ("0,3,1000,4", "1003"),
        ("0,3,1000,5", "2000"),
        ("0,3", "2000"),
        ("0,x", "9"),
        ("9223372036854775807,7", "9223372036854775807"),
    ] {
        assert!(with(map, size).is_err(), "{map} in {size}");
    }
}

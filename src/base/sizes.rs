//! Byte counts for people: `50000000` reads as `47.6 MiB` in the output of `ringcast check`, in the
//! start banner and in log lines. Machines (metrics, JSON) get the plain number.

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Formats a byte count with binary units, one decimal unless it is a whole number.
pub fn human(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Largest unit not above the value: 1024 is 10 bits, each unit 10 more.
    let step = (bytes.ilog2() / 10) as usize;
    let tenths = u128::from(bytes) * 10 / (1_u128 << (10 * step));
    let unit = UNITS[step - 1];
    match tenths % 10 {
        0 => format!("{} {unit}", tenths / 10),
        tenth => format!("{}.{tenth} {unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::human;

    #[test]
    fn units_change_at_powers_of_1024() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (1_048_575, "1023.9 KiB"),
            (50_000_000, "47.6 MiB"),
            (1 << 30, "1 GiB"),
            (u64::MAX, "15.9 EiB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human(bytes), text, "{bytes}");
        }
    }
}

//! How numbers are dialled in the commonest countries: calling code, prefixes, emergency numbers (ITU-T E.164 and national
//! plans). An account of another country dials `+` or `00`.

/// The calling code shared by North America.
pub const NANP: &str = "1";

/// Answered as emergency calls by mobile phones everywhere (3GPP TS 22.101 §10).
pub const EMERGENCY_EVERYWHERE: [&str; 2] = ["112", "911"];

/// One country's habits.
#[derive(Debug, Clone, Copy)]
pub struct Country {
    /// ISO 3166-1 alpha-2.
    pub iso: &'static str,
    /// Digits after the `+`; empty when the country is not in the table.
    pub calling_code: &'static str,
    /// Dialled before a foreign number.
    pub international_prefix: &'static str,
    /// Dialled before a national number and dropped in E.164; empty: there is none.
    pub national_prefix: &'static str,
    /// Its emergency numbers beside [`EMERGENCY_EVERYWHERE`].
    pub emergency: &'static [&'static str],
}

/// The habits of a country; of one that is not in the table: `00`, no national numbers.
#[must_use]
pub fn of(iso: &str) -> &'static Country {
    COUNTRIES.iter().find(|country| country.iso == iso).unwrap_or(&ELSEWHERE)
}

const ELSEWHERE: Country = row("", "", "00", "", &[]);

const fn row(
    iso: &'static str,
    calling_code: &'static str,
    international_prefix: &'static str,
    national_prefix: &'static str,
    emergency: &'static [&'static str],
) -> Country {
    Country { iso, calling_code, international_prefix, national_prefix, emergency }
}

const COUNTRIES: &[Country] = &[
    row("AE", "971", "00", "0", &["901", "997", "998", "999"]),
    row("AL", "355", "00", "0", &["127", "128", "129"]),
    row("AM", "374", "00", "0", &["101", "102", "103"]),
    row("AR", "54", "00", "0", &["100", "101", "107"]),
    row("AT", "43", "00", "0", &["122", "128", "133", "140", "144"]),
    row("AU", "61", "0011", "0", &["000", "106"]),
    row("AZ", "994", "00", "0", &["101", "102", "103"]),
    row("BA", "387", "00", "0", &["122", "123", "124"]),
    row("BD", "880", "00", "0", &["999"]),
    row("BE", "32", "00", "0", &["100", "101"]),
    row("BG", "359", "00", "0", &["150", "160", "166"]),
    row("BR", "55", "00", "0", &["190", "192", "193"]),
    row("BS", NANP, "011", "1", &["919"]),
    row("BY", "375", "810", "80", &["101", "102", "103", "104"]),
    row("CA", NANP, "011", "1", &[]),
    row("CH", "41", "00", "0", &["117", "118", "144", "1414", "1415"]),
    row("CL", "56", "00", "", &["131", "132", "133"]),
    row("CN", "86", "00", "0", &["110", "119", "120", "122"]),
    row("CO", "57", "00", "", &["123"]),
    row("CY", "357", "00", "", &["199"]),
    row("CZ", "420", "00", "", &["150", "155", "156", "158"]),
    row("DE", "49", "00", "0", &["110"]),
    row("DK", "45", "00", "", &[]),
    row("DO", NANP, "011", "1", &[]),
    row("EE", "372", "00", "", &["110"]),
    row("EG", "20", "00", "0", &["122", "123", "180"]),
    row("ES", "34", "00", "", &["061", "062", "080", "085", "091", "092"]),
    row("FI", "358", "00", "0", &[]),
    row("FR", "33", "00", "0", &["15", "17", "18", "114", "115", "119", "191", "196", "197"]),
    row("GB", "44", "00", "0", &["999"]),
    row("GE", "995", "00", "0", &[]),
    row("GH", "233", "00", "0", &["191", "192", "193", "999"]),
    row("GR", "30", "00", "", &["100", "108", "166", "199"]),
    row("HK", "852", "001", "", &["999"]),
    row("HR", "385", "00", "0", &["192", "193", "194", "195"]),
    row("HU", "36", "00", "06", &["104", "105", "107"]),
    row("ID", "62", "001", "0", &["110", "113", "118", "119"]),
    row("IE", "353", "00", "0", &["999"]),
    row("IL", "972", "00", "0", &["100", "101", "102"]),
    row("IN", "91", "00", "0", &["100", "101", "102", "108"]),
    row("IS", "354", "00", "", &[]),
    row("IT", "39", "00", "", &["113", "114", "115", "117", "118", "1515", "1530"]),
    row("JM", NANP, "011", "1", &["110", "119"]),
    row("JP", "81", "010", "0", &["110", "118", "119"]),
    row("KE", "254", "000", "0", &["999"]),
    row("KR", "82", "001", "0", &["119"]),
    row("KW", "965", "00", "", &[]),
    row("KZ", "7", "810", "8", &["101", "102", "103", "104"]),
    row("LI", "423", "00", "", &["117", "118", "144"]),
    row("LK", "94", "00", "0", &["110", "118", "119", "1990"]),
    row("LT", "370", "00", "0", &[]),
    row("LU", "352", "00", "", &["113"]),
    row("LV", "371", "00", "", &["110", "113", "114"]),
    row("MA", "212", "00", "0", &["15", "19", "177"]),
    row("MD", "373", "00", "0", &["901", "902", "903"]),
    row("ME", "382", "00", "0", &["122", "123", "124"]),
    row("MK", "389", "00", "0", &["192", "193", "194"]),
    row("MT", "356", "00", "", &[]),
    row("MX", "52", "00", "", &[]),
    row("MY", "60", "00", "0", &["999"]),
    row("NG", "234", "009", "0", &["199"]),
    row("NL", "31", "00", "0", &[]),
    row("NO", "47", "00", "", &["110", "113"]),
    row("NZ", "64", "00", "0", &["111"]),
    row("PE", "51", "00", "0", &["105", "106", "116", "117"]),
    row("PH", "63", "00", "0", &[]),
    row("PK", "92", "00", "0", &["15", "16", "115", "1122"]),
    row("PL", "48", "00", "", &["997", "998", "999"]),
    row("PR", NANP, "011", "1", &[]),
    row("PT", "351", "00", "", &["117"]),
    row("QA", "974", "00", "", &["999"]),
    row("RO", "40", "00", "0", &[]),
    row("RS", "381", "00", "0", &["192", "193", "194"]),
    row("RU", "7", "810", "8", &["101", "102", "103", "104"]),
    row("SA", "966", "00", "0", &["997", "998", "999"]),
    row("SE", "46", "00", "0", &[]),
    row("SG", "65", "001", "", &["995", "999"]),
    row("SI", "386", "00", "0", &["113"]),
    row("SK", "421", "00", "0", &["150", "155", "158"]),
    row("TH", "66", "001", "0", &["191", "199", "1669"]),
    row("TN", "216", "00", "", &["190", "193", "197", "198"]),
    row("TR", "90", "00", "0", &["110", "155", "156"]),
    row("TT", NANP, "011", "1", &["990", "999"]),
    row("TW", "886", "002", "0", &["110", "119"]),
    row("UA", "380", "00", "0", &["101", "102", "103", "104"]),
    row("US", NANP, "011", "1", &[]),
    row("VN", "84", "00", "0", &["113", "114", "115"]),
    row("ZA", "27", "00", "0", &["10111", "10177"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_each_country_is_in_it_once() {
        assert!(COUNTRIES.windows(2).all(|pair| pair[0].iso < pair[1].iso));
        assert_eq!(of("GB").calling_code, "44");
        assert_eq!(of("XX").calling_code, "");
    }
}

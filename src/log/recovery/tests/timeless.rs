//! Records without timestamps: their age is that of the file.

use super::*;

#[test]
fn the_files_time_stands_where_no_record_has_one() {
    let (batches, _) = three_segments();
    let timeless: Vec<Batch> = batches.iter().map(|batch| Batch { timestamp_ms: -1, ..*batch }).collect();
    for plan in [plan(0), same_boot(0), clean()] {
        let recovered = recover(&mut directory(&timeless, &[5, 12]), &plan);
        assert!(recovered.segments.iter().all(|segment| segment.modified_ms == MODIFIED_MS));
        let recovered = recover(&mut directory(&batches, &[5, 12]), &plan);
        assert!(recovered.segments.iter().all(|segment| segment.modified_ms == -1), "nobody has to look");
    }
}

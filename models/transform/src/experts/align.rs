//! Which experts are alike, and which of their neurons.

/// Clusters of experts whose scores rise and fall together over the tokens, `[tokens, count]`: those two with the highest mean
/// correlation are joined until `left` are left. Each is in ascending order, and the clusters by their first experts.
pub(super) fn clusters(scores: &[f32], count: usize, left: usize) -> Vec<Vec<usize>> {
    let mut like = correlations(scores, count);
    let mut clusters: Vec<Vec<usize>> = (0..count).map(|expert| vec![expert]).collect();
    while clusters.len() > left.max(1) {
        let pairs = (0..clusters.len()).flat_map(|a| (a + 1..clusters.len()).map(move |b| (a, b)));
        let best = pairs.reduce(|best, next| if like[next.0][next.1] > like[best.0][best.1] { next } else { best });
        let Some((a, b)) = best else { break };
        let [of_a, of_b] = [a, b].map(|at| clusters[at].len() as f64);
        like.remove(b);
        for row in &mut like {
            let other = row.remove(b);
            row[a] = (row[a] * of_a + other * of_b) / (of_a + of_b);
        }
        like[a] = like.iter().map(|row| row[a]).collect();
        let joined = clusters.remove(b);
        clusters[a].extend(joined);
    }
    clusters.iter_mut().for_each(|cluster| cluster.sort_unstable());
    clusters.sort();
    clusters
}

/// The correlation of every two columns.
fn correlations(scores: &[f32], count: usize) -> Vec<Vec<f64>> {
    let tokens = (scores.len() / count.max(1)).max(1) as f64;
    let mut means = vec![0f64; count];
    scores.chunks_exact(count).for_each(|row| means.iter_mut().zip(row).for_each(|(sum, &v)| *sum += f64::from(v)));
    means.iter_mut().for_each(|mean| *mean /= tokens);
    let mut products = vec![vec![0f64; count]; count];
    for row in scores.chunks_exact(count) {
        let around: Vec<f64> = row.iter().zip(&means).map(|(&v, mean)| f64::from(v) - mean).collect();
        for (products, a) in products.iter_mut().zip(&around) {
            products.iter_mut().zip(&around).for_each(|(sum, b)| *sum += a * b);
        }
    }
    let spread: Vec<f64> = (0..count).map(|at| products[at][at].sqrt().max(f64::MIN_POSITIVE)).collect();
    let of = |a: usize, b: usize| products[a][b] / (spread[a] * spread[b]);
    (0..count).map(|a| (0..count).map(|b| of(a, b)).collect()).collect()
}

/// The assignment of columns to rows with the highest sum of `gains`, `[size, size]`: the column of each row. By shortest
/// augmenting paths (R. Jonker and A. Volgenant, 1987).
pub(super) fn assignment(gains: &[f32], size: usize) -> Vec<usize> {
    const NONE: usize = usize::MAX;
    let cost = |row: usize, column: usize| -f64::from(gains[row * size + column]);
    let (mut of_rows, mut of_columns) = (vec![0f64; size], vec![0f64; size]);
    let mut row_of = vec![NONE; size];
    for start in 0..size {
        // Distances to every column over alternating paths from the new row.
        let (mut row, mut column) = (start, NONE);
        let (mut shortest, mut before, mut done) = (vec![f64::INFINITY; size], vec![NONE; size], vec![false; size]);
        let mut length = 0.0;
        loop {
            for next in (0..size).filter(|&next| !done[next]) {
                let far = length + cost(row, next) - of_rows[row] - of_columns[next];
                if far < shortest[next] {
                    (shortest[next], before[next]) = (far, column);
                }
            }
            let open = (0..size).filter(|&next| !done[next]);
            let Some(nearest) = open.min_by(|&a, &b| shortest[a].total_cmp(&shortest[b])) else { break };
            (column, length) = (nearest, shortest[nearest]);
            done[column] = true;
            if row_of[column] == NONE {
                break;
            }
            row = row_of[column];
        }
        for next in (0..size).filter(|&next| done[next]) {
            let slack = length - shortest[next];
            of_columns[next] -= slack;
            if row_of[next] != NONE {
                of_rows[row_of[next]] += slack;
            }
        }
        of_rows[start] += length;
        // Exchange along the path.
        while column != NONE {
            let previous = before[column];
            row_of[column] = if previous == NONE { start } else { row_of[previous] };
            column = previous;
        }
    }
    let mut columns = vec![NONE; size];
    row_of.iter().enumerate().for_each(|(column, &row)| columns[row] = column);
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn experts_that_are_scored_alike_come_together() {
        let mut random = Random::new(2, "scores");
        let mut rows = Vec::new();
        for _ in 0..100 {
            let [a, b] = [(); 2].map(|()| random.below(1000) as f32);
            let mut noise = || random.below(100) as f32;
            rows.extend([a + noise(), 2.0 * b + noise(), a * 3.0 + noise(), b + noise(), noise() * 9.0]);
        }
        assert_eq!(clusters(&rows, 5, 3), [vec![0, 2], vec![1, 3], vec![4]]);
        assert_eq!(clusters(&rows, 5, 5).len(), 5);
        assert_eq!(clusters(&rows, 5, 1), [vec![0, 1, 2, 3, 4]]);
    }

    #[test]
    fn the_best_assignment_is_found() {
        let mut random = Random::new(4, "gains");
        for size in [1, 2, 3, 4, 5, 6] {
            for _ in 0..20 {
                let gains: Vec<f32> = (0..size * size).map(|_| random.below(100) as f32 - 50.0).collect();
                let sum = |columns: &[usize]| -> f32 {
                    columns.iter().enumerate().map(|(row, column)| gains[row * size + column]).sum()
                };
                let found = assignment(&gains, size);
                let mut sorted = found.clone();
                sorted.sort_unstable();
                assert_eq!(sorted, (0..size).collect::<Vec<_>>());
                let mut best = f32::NEG_INFINITY;
                for_each_order(&mut (0..size).collect(), 0, &mut |columns| best = best.max(sum(columns)));
                assert_eq!(sum(&found), best);
            }
        }
    }

    fn for_each_order(items: &mut Vec<usize>, from: usize, visit: &mut dyn FnMut(&[usize])) {
        if from == items.len() {
            return visit(items);
        }
        for at in from..items.len() {
            items.swap(from, at);
            for_each_order(items, from + 1, visit);
            items.swap(from, at);
        }
    }
}

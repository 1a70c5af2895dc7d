//! Which experts are alike, and which of their neurons.

/// Clusters of experts whose scores rise and fall together over the tokens, `[tokens, count]`: those two with the highest mean
/// correlation are joined until `left` are left. Each is in ascending order, and the clusters by their first experts.
pub(super) fn clusters(scores: &[f32], count: usize, left: usize) -> Vec<Vec<usize>> {
    let mut like = correlations(scores, count);
    let mut clusters: Vec<Vec<usize>> = (0..count).map(|expert| vec![expert]).collect();
    let mut open: Vec<usize> = (0..count).collect();
    // The one behind each cluster that is most like it, so that not all pairs are looked at every time.
    let most_like = |like: &[Vec<f64>], open: &[usize], a: usize| {
        let behind = open.iter().copied().filter(|&b| b > a);
        behind.reduce(|best, next| if like[a][next] > like[a][best] { next } else { best })
    };
    let mut nearest: Vec<Option<usize>> = (0..count).map(|a| most_like(&like, &open, a)).collect();
    while open.len() > left.max(1) {
        let pairs = open.iter().filter_map(|&a| Some((a, nearest[a]?)));
        let best = pairs.reduce(|best, next| if like[next.0][next.1] > like[best.0][best.1] { next } else { best });
        let Some((a, b)) = best else { break };
        let [of_a, of_b] = [a, b].map(|at| clusters[at].len() as f64);
        open.retain(|&other| other != b);
        for &other in &open {
            let joined = (like[other][a] * of_a + like[other][b] * of_b) / (of_a + of_b);
            (like[other][a], like[a][other]) = (joined, joined);
        }
        for &other in open.iter().filter(|&&other| other <= b) {
            match nearest[other] {
                Some(known) if known != a && known != b && other != a => {
                    let (now, then) = (like[other][a], like[other][known]);
                    if other < a && (now > then || now == then && a < known) {
                        nearest[other] = Some(a);
                    }
                }
                _ => nearest[other] = most_like(&like, &open, other),
            }
        }
        let joined = std::mem::take(&mut clusters[b]);
        clusters[a].extend(joined);
    }
    clusters.retain(|cluster| !cluster.is_empty());
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

    /// The definition: of all pairs, the first with the highest mean correlation is joined.
    fn plain(scores: &[f32], count: usize, left: usize) -> Vec<Vec<usize>> {
        let like = correlations(scores, count);
        let mut clusters: Vec<Vec<usize>> = (0..count).map(|expert| vec![expert]).collect();
        while clusters.len() > left {
            let mean = |a: &[usize], b: &[usize]| {
                let all = a.iter().flat_map(|&a| b.iter().map(move |&b| (a, b)));
                all.map(|(a, b)| like[a][b]).sum::<f64>() / (a.len() * b.len()) as f64
            };
            let pairs = (0..clusters.len()).flat_map(|a| (a + 1..clusters.len()).map(move |b| (a, b)));
            let best = pairs.max_by(|&(a, b), &(c, d)| {
                mean(&clusters[a], &clusters[b]).total_cmp(&mean(&clusters[c], &clusters[d]))
            });
            let (a, b) = best.unwrap();
            let joined = clusters.remove(b);
            clusters[a].extend(joined);
        }
        clusters.iter_mut().for_each(|cluster| cluster.sort_unstable());
        clusters.sort();
        clusters
    }

    #[test]
    fn clusters_are_those_of_all_pairs() {
        let mut random = Random::new(6, "pairs");
        for count in [1, 2, 3, 8, 17, 30] {
            let scores: Vec<f32> = (0..count * 40).map(|_| random.below(1000) as f32).collect();
            for left in [1, 2, 5, count].into_iter().filter(|&left| left <= count) {
                assert_eq!(clusters(&scores, count, left), plain(&scores, count, left), "{left} of {count}");
            }
        }
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

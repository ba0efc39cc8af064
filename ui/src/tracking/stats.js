// How parameters and a metric go together, by ranks: no model, no randomness.

/** The ranks of values, equal ones share theirs. @param {number[]} values */
export function ranks(values) {
  const order = values.map((_, i) => i).sort((a, b) => (values[a] ?? 0) - (values[b] ?? 0));
  const result = new Array(values.length).fill(0);
  for (let from = 0; from < order.length;) {
    let until = from + 1;
    while (until < order.length && values[order[until] ?? 0] === values[order[from] ?? 0]) until += 1;
    for (let i = from; i < until; i += 1) result[order[i] ?? 0] = (from + until + 1) / 2;
    from = until;
  }
  return /** @type {number[]} */ (result);
}

const mean = (/** @type {number[]} */ values) => values.reduce((sum, value) => sum + value, 0) / values.length;

/** Spearman's rank correlation; null where one of them does not vary. @param {number[]} x @param {number[]} y */
export function spearman(x, y) {
  const [a, b] = [ranks(x), ranks(y)];
  const [ma, mb] = [mean(a), mean(b)];
  let [ab, aa, bb] = [0, 0, 0];
  a.forEach((value, i) => {
    const [da, db] = [value - ma, (b[i] ?? 0) - mb];
    ab += da * db;
    aa += da * da;
    bb += db * db;
  });
  return aa > 0 && bb > 0 ? ab / Math.sqrt(aa * bb) : null;
}

/** The correlation ratio of the ranks of `y` between groups: the square root of the share of variance that lies between them (Kruskal and Wallis). @param {string[]} groups @param {number[]} y */
export function correlationRatio(groups, y) {
  const b = ranks(y);
  const all = mean(b);
  /** @type {Map<string, number[]>} */
  const by = new Map();
  groups.forEach((group, i) => by.set(group, [...(by.get(group) ?? []), b[i] ?? 0]));
  const total = b.reduce((sum, value) => sum + (value - all) ** 2, 0);
  const between = [...by.values()].reduce((sum, values) => sum + values.length * (mean(values) - all) ** 2, 0);
  return total > 0 && by.size > 1 ? Math.sqrt(between / total) : null;
}

/** What 19 of 20 measures stay under by chance alone, with `n` runs and `freedom` degrees: from the chi-square law, after Wilson and Hilferty. @param {number} n @param {number} freedom */
export function chance(n, freedom) {
  const spread = 2 / (9 * freedom);
  const quantile = freedom === 1 ? 3.841 : freedom * (1 - spread + 1.645 * Math.sqrt(spread)) ** 3;
  return n > 1 ? Math.min(1, Math.sqrt(quantile / (n - 1))) : 1;
}

// Work for a JavaScript engine that counts references: objects, closures, strings, maps, sorting.
"use strict";
let check = 0;
function note(n) { check = (Math.imul(check, 31) + n) | 0; }

function tree(depth) { return depth ? { l: tree(depth - 1), r: tree(depth - 1) } : { leaf: 1 }; }
function leaves(t) { return t.leaf ? 1 : leaves(t.l) + leaves(t.r); }

for (let round = 0; round < scale; round++) {
  note(leaves(tree(11)));
  const words = new Map();
  for (let i = 0; i < 3000; i++) {
    const word = "w" + ((i * 7919) % 1009).toString(36) + "x".repeat(i % 17);
    words.set(word, (words.get(word) || 0) + 1);
  }
  const sorted = [...words.entries()].sort((a, b) => b[1] - a[1] || (a[0] < b[0] ? -1 : 1));
  note(sorted.length);
  note(sorted[7][0].length);
  const document = sorted.slice(0, 500).map(
    ([name, count], id) => ({ id, name, count, tags: [name, id] }));
  const again = JSON.parse(JSON.stringify(document));
  note(again.reduce((sum, d) => sum + d.tags[0].length * d.count, 0));
  const adders = [];
  for (let i = 0; i < 1000; i++) adders.push(x => x + i);
  note(adders.reduce((sum, f) => f(sum) % 65521, round));
  let text = "";
  for (let i = 0; i < 2000; i++) text += String.fromCharCode(97 + (i * i) % 26);
  note(text.split("a").map(s => s.toUpperCase()).join("-").replace(/B+/g, "<$&>").length);
}
"quickjs check " + check;

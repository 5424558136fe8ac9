# Regroups records; the text of every record is split, joined, sorted.
group_by(.kind)
| map({kind: .[0].kind, n: length, words: (map(.text | split(" ")) | add | sort | unique | length),
       longest: (map(.text) | max_by(length) | length),
       again: (map(tojson | fromjson | .id) | add)})
| sort_by(-.n, .kind) | .[:20]

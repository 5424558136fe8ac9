-- Work for SQLite in memory: rows made, joined, grouped, changed, as text and as JSON.
-- The parameter :rows is set.
CREATE TABLE numbers(n INTEGER PRIMARY KEY);
WITH RECURSIVE up(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < :rows)
  INSERT INTO numbers SELECT n FROM up;
CREATE TABLE item(id INTEGER PRIMARY KEY, name TEXT, kind INTEGER, price REAL, body TEXT);
INSERT INTO item
  SELECT n, printf('item %d of %s', n * 7919 % 10007, hex(n * n)), n % 97, n * 1.25,
         replace(hex(zeroblob(n % 60)), '00', 'ab') FROM numbers;
CREATE INDEX by_name ON item(name);
CREATE INDEX by_kind ON item(kind, price);
SELECT count(*), sum(length(name)), max(name) FROM item;
SELECT kind, count(*), group_concat(substr(name, 6, 3), '') FROM item
  WHERE id % 10 = 3 GROUP BY kind ORDER BY 2 DESC, 1 LIMIT 3;
CREATE TABLE sale(id INTEGER PRIMARY KEY, item INTEGER, at TEXT);
INSERT INTO sale
  SELECT n, n * 31 % :rows + 1, date('2020-01-01', (n % 700) || ' days') FROM numbers;
CREATE INDEX sale_item ON sale(item);
SELECT strftime('%Y-%m', at) AS month, count(*), sum(price)
  FROM sale JOIN item ON item.id = sale.item
  GROUP BY month ORDER BY month LIMIT 5;
UPDATE item SET body = body || name || body WHERE kind % 3 = 0;
DELETE FROM item WHERE kind % 5 = 1;
SELECT count(*), sum(length(body)) FROM item;
SELECT sum(json_extract(json_object('a', name, 'b', json_array(id, kind, price)), '$.b[1]'))
  FROM item;
SELECT count(DISTINCT upper(name) || kind) FROM item;
SELECT a.kind, count(*) FROM item a JOIN item b ON a.kind = b.kind AND a.id < b.id AND b.id < 400
  GROUP BY a.kind ORDER BY 2 DESC, 1 LIMIT 3;
PRAGMA integrity_check;

-- Work that a Lua program does, chosen to stress malloc, with answers known beforehand.

local function check(name, got, want)
  if got ~= want then
    error(("%s: got %s, expected %s"):format(name, tostring(got), tostring(want)))
  end
  print(("%-28s %s"):format(name, tostring(got)))
end

-- Small tables: binary trees of a known number of nodes, built and dropped.
local function tree(depth)
  if depth == 0 then return {} end
  return {tree(depth - 1), tree(depth - 1)}
end

local function nodes(t)
  if not t[1] then return 1 end
  return 1 + nodes(t[1]) + nodes(t[2])
end

local total = 0
for depth = 4, 16, 4 do
  for _ = 1, 2 ^ (16 - depth) do total = total + nodes(tree(depth)) end
end
check("binary trees, nodes", total, 4 * 2 ^ 17 - 2 ^ 12 - 2 ^ 8 - 2 ^ 4 - 1)

-- Growing vectors: realloc through every size.
local vector = {}
for i = 1, 300000 do vector[i] = i end
local sum = 0
for _, v in ipairs(vector) do sum = sum + v end
check("vector, sum", sum, 300000 * 300001 // 2)

-- Strings of many lengths, interned and not, joined, cut, searched.
local pieces = {}
for i = 1, 20000 do pieces[#pieces + 1] = ("%d:%s"):format(i, ("x"):rep(i % 257)) end
local text = table.concat(pieces, ",")
local count, length = 0, 0
for number, xs in text:gmatch("(%d+):(x*)") do
  count, length = count + 1, length + #xs
  if #xs ~= tonumber(number) % 257 then error("piece " .. number) end
end
check("strings, pieces", count, 20000)
local expected = 0
for i = 1, 20000 do expected = expected + i % 257 end
check("strings, length", length, expected)

-- Large blocks that grow and shrink.
local big = ""
for _ = 1, 22 do big = (big == "" and "0123456789abcdef" or big .. big) end
check("large string", #big, 16 * 2 ^ 21)
big = nil

-- Hash tables that fill and empty, with weak keys and finalizers along.
local finalized = 0
do
  local hash, weak = {}, setmetatable({}, {__mode = "k"})
  for i = 1, 100000 do
    local key = setmetatable({}, {__gc = function() finalized = finalized + 1 end})
    weak[key] = i
    hash[i % 5000] = key
  end
  local left = 0
  for _ in pairs(hash) do left = left + 1 end
  check("hash, entries", left, 5000)
end
collectgarbage()
collectgarbage()
check("finalizers", finalized, 100000)

-- Coroutines: a stack each.
local done = 0
local all = {}
for i = 1, 5000 do
  all[i] = coroutine.wrap(function(n)
    for _ = 1, 3 do n = coroutine.yield(n + 1) end
    done = done + 1
  end)
end
for round = 1, 3 do
  for i = 1, 5000 do if all[i](round) ~= round + 1 then error("coroutine") end end
end
for i = 1, 5000 do all[i](0) end
check("coroutines", done, 5000)

-- Sorting by a comparison that allocates; chunks compiled from text.
local words = {}
for i = 1, 20000 do words[i] = tostring((i * 7919) % 20011) end
table.sort(words, function(a, b) return ("%08d"):format(a) < ("%08d"):format(b) end)
for i = 2, #words do if tonumber(words[i - 1]) > tonumber(words[i]) then error("order") end end
local made = 0
for i = 1, 3000 do made = made + load("local a = ... ; return a + " .. i)(1) end
check("compiled chunks", made, 3000 + 3000 * 3001 // 2)

print("workload ok")

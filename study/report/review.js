(function () {  // suspects one by one: keys mark them, the marks become decisions.csv
  var box = document.getElementById("review"), items = document.querySelectorAll(".suspects > li"), current = 0, marks = {};
  var part = function (selector) { return box.querySelector(selector); };
  var store = "study decisions " + review.digest;
  try { marks = JSON.parse(localStorage.getItem(store)) || {}; } catch (error) { marks = {}; }  // none in a sandboxed frame
  review.classes.forEach(function (name) { part("select").add(new Option(name, name)); });

  function quoted(text) {
    if (/^[=+\-@\t\r]/.test(text)) text = "'" + text;  // a spreadsheet would run it
    return /[",;\n\t]/.test(text) ? '"' + text.replace(/"/g, '""') + '"' : text;
  }
  function csv() {
    var lines = ["example,label,decision,new_label,data_digest"];
    review.suspects.forEach(function (each) {
      var mark = marks[each.example];
      if (mark) lines.push([each.example, each.label, mark.decision, mark.label || "", review.digest].map(quoted).join(","));
    });
    return lines.join("\n") + "\n";
  }
  function showMarks() {
    items.forEach(function (item, place) {
      var mark = marks[review.suspects[place].example];
      if (mark) item.dataset.decision = mark.decision + (mark.label ? " → " + mark.label : ""); else delete item.dataset.decision;
    });
    var count = review.suspects.filter(function (each) { return marks[each.example]; }).length;
    part(".count").textContent = count + " of " + review.suspects.length + " decided.";
    part("textarea").value = csv();
    try { localStorage.setItem(store, JSON.stringify(marks)); } catch (error) { /* the page still has them */ }
  }
  function show(place) {
    items[current].classList.remove("current");
    current = Math.max(0, Math.min(place, items.length - 1));
    items[current].classList.add("current");
    var each = review.suspects[current];
    var picture = items[current].querySelector("img");  // none of features without a file
    part(".large").hidden = !picture;
    if (picture) part(".large").src = picture.src;
    part(".large").alt = each.example;
    part(".label").textContent = each.label;
    part(".suggested").textContent = each.suggested ? "→ " + each.suggested + "?" : "";
    part(".now .file").textContent = each.example;
    part("select").value = each.suggested || each.label;
    part(".near").replaceChildren.apply(part(".near"), each.neighbours.map(function (other) {
      var item = document.createElement("li"), image = new Image();
      image.src = other.picture; image.alt = image.title = other.example;
      item.append(other.picture ? image : other.example + ": ", other.label);
      return item;
    }));
    part(".copies").textContent = each.duplicates.length ? "Same pixels: " + each.duplicates.join(", ") : "";
  }
  function mark(decision, label) {
    var each = review.suspects[current];
    if (decision) marks[each.example] = { decision: decision, label: label }; else delete marks[each.example];
    showMarks();
    if (decision) show(current + 1);
  }
  var actions = {
    k: function () { mark("keep"); }, d: function () { mark("drop"); }, u: function () { mark(""); },
    r: function () { mark("relabel", part("select").value); },
    ArrowLeft: function () { show(current - 1); }, ArrowRight: function () { show(current + 1); }
  };
  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(SELECT|TEXTAREA|INPUT)$/.test(event.target.tagName)) return;
    var action = actions[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (action) { event.preventDefault(); action(); }
  });
  box.querySelectorAll("button[data-key]").forEach(function (button) {
    button.addEventListener("click", function () { actions[button.dataset.key](); });
  });
  part(".save").addEventListener("click", function () {
    var link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([csv()], { type: "text/csv" }));
    link.download = "decisions.csv";
    link.click();
    URL.revokeObjectURL(link.href);
  });
  items.forEach(function (item, place) { item.addEventListener("click", function () { show(place); }); });
  showMarks();
  show(0);
})();

"""Can the rationales be trusted? Vote against gold, samples per question, duplicates, leaks.

found = audit(view)                 a run, or a store with one generation
print(audit_text(found))
write_audit(view, found)            audit.html in the folder of the run or the generation
"""

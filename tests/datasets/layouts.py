"""Small made-up data sets, each in the exact layout of a public one: tables, folders, and stand-ins for films."""

import gzip
import json
from pathlib import Path

from chexpert_hier.labels import CHEXPERT_LABELS


def films(folder: Path, *names: str) -> None:
    """Files that stand for films, each with bytes of its own."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"film " + name.encode())


def lines(path: Path, *rows: str, compress: bool = False) -> None:
    """A text file; with `compress` as .gz."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = ("\n".join(rows) + "\n").encode()
    path.write_bytes(gzip.compress(data) if compress else data)


def codes(**given: str) -> str:
    """The 14 cells of a row; names with _ for blanks."""
    return ",".join(given.get(label.replace(" ", "_"), "") for label in CHEXPERT_LABELS)


def chexpert(folder: Path) -> None:
    """Irvin et al. 2019: Path, Sex, Age, Frontal/Lateral, AP/PA and the 14 labels."""
    header = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(CHEXPERT_LABELS)
    names = [f"CheXpert-v1.0-small/{split}/patient{number:05d}/study1/view1_frontal.jpg"
             for split, number in (("train", 1), ("train", 2), ("valid", 64541))]
    for split, own in (("train", names[:2]), ("valid", names[2:])):
        lines(folder / f"{split}.csv", header, *(f"{name},Female,68,Frontal,AP,{codes(Edema='1.0', Fracture='-1.0')}"
                                                 for name in own))
    films(folder, *(name.partition("/")[2] for name in names))


def csv(folder: Path) -> None:
    """A user's own table."""
    lines(folder / "train.csv", "Path,Patient,Cat,Dog", *(f"set/{n}.png,p{n},1,-1" for n in range(20)))
    films(folder, *(f"{n}.png" for n in range(20)))


def chestxray14(folder: Path) -> None:
    """Wang et al. 2017, the 2020 edition of the table."""
    findings = ("No Finding", "Effusion", "Cardiomegaly|Effusion", "Hernia|Mass")
    names = [f"{number:08d}_000.png" for number in range(20)]
    lines(folder / "Data_Entry_2017_v2020.csv", "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient "
          "Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]",
          *(f"{name},{findings[n % 4]},0,{n},57,M,PA,2682,2749,0.143,0.143" for n, name in enumerate(names)))
    films(folder, *(f"images_001/images/{name}" for name in names))


def mimic(folder: Path) -> None:
    """Johnson et al. 2019, version 2.1.0 of MIMIC-CXR-JPG, with MIMIC-IV's patients beside it."""
    metadata, split, labels = [], [], []
    for subject, part in ((10000032, "train"), (11000033, "train"), (12000034, "validate"), (13000035, "test")):
        study = 50000000 + subject % 100
        labels.append(f"{subject},{study},{codes(Edema='1.0', Fracture='-1.0', Atelectasis='0.0')}")
        for view, meaning in (("AP", "antero-posterior"), ("LATERAL", "lateral"), ("", "postero-anterior"),
                              ("LLO", "")):
            name = f"{subject:08x}-{len(metadata):08x}"
            metadata.append(f"{name},{subject},{study},CHEST (PA AND LAT),{view},3056,2544,21800506,213014.531,"
                            f"CHEST (PA AND LAT),{meaning},Erect")
            split.append(f"{name},{study},{subject},{part}")
            films(folder, f"files/p{str(subject)[:2]}/p{subject}/s{study}/{name}.jpg")
    lines(folder / "mimic-cxr-2.0.0-metadata.csv.gz", "dicom_id,subject_id,study_id,PerformedProcedureStepDescription,"
          "ViewPosition,Rows,Columns,StudyDate,StudyTime,ProcedureCodeSequence_CodeMeaning,"
          "ViewCodeSequence_CodeMeaning,PatientOrientationCodeSequence_CodeMeaning", *metadata, compress=True)
    lines(folder / "mimic-cxr-2.0.0-split.csv.gz", "dicom_id,study_id,subject_id,split", *split, compress=True)
    for kind in ("chexpert", "negbio"):
        lines(folder / f"mimic-cxr-2.0.0-{kind}.csv.gz", "subject_id,study_id," + ",".join(CHEXPERT_LABELS), *labels,
              compress=True)
    lines(folder / "mimic-cxr-2.1.0-test-set-labeled.csv",
          "study_id," + ",".join(CHEXPERT_LABELS).replace("Lung Opacity", "Airspace Opacity"),
          f"50000035,{codes(Lung_Opacity='1.0', Edema='0.0')}")
    lines(folder / "patients.csv.gz", "subject_id,gender,anchor_age,anchor_year,anchor_year_group,dod",
          "10000032,F,52,2180,2014 - 2016,2180-09-09", "12000034,M,40,2170,2014 - 2016,", compress=True)


PADCHEST = ["['normal']", "['pleural effusion', 'laminar atelectasis', 'COPD signs']", "['unchanged']",
            "['cardiomegaly', 'unchanged']", "['pacemaker', 'normal']", "['normal', 'nodule']", "['exclude']", "nan",
            "['']", "['scoliosis']"]


def padchest(folder: Path) -> None:
    """Bustos et al. 2020: one line per film, labels as a list."""
    rows = []
    for number, labels in enumerate([*PADCHEST, *["['normal']"] * 20]):
        projection = {10: "L", 11: "COSTAL", 12: "AP_horizontal"}.get(number, "PA")
        name = f"2168401113669640128{number:02d}_00-{number:03d}-001.png"
        rows.append(f'{number},{name},{number % 3},20140915,study{number},patient{number},1930.0,F,POSTEROANTERIOR,'
                    f'{projection},Manual review of DICOM fields,No,CR,ImagingDynamicsCompanyLtd,MONOCHROME2,0,None,'
                    f'None,12,2092,2251,1728,1872,250,2,2500,10,-1.42,4765777," sin hallazg , patolog",Physician,'
                    f'"{labels}",'
                    "[],\"[['normal'], ['normal']]\",[],[]")
        films(folder, f"{number % 3}/{name}")
    lines(folder / "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv.gz",
          ",ImageID,ImageDir,StudyDate_DICOM,StudyID,PatientID,PatientBirth,PatientSex_DICOM,ViewPosition_DICOM,"
          "Projection,MethodProjection,Pediatric,Modality_DICOM,Manufacturer_DICOM,PhotometricInterpretation_DICOM,"
          "PixelRepresentation_DICOM,PixelAspectRatio_DICOM,SpatialResolution_DICOM,BitsStored_DICOM,WindowCenter_DICOM,"
          "WindowWidth_DICOM,Rows_DICOM,Columns_DICOM,XRayTubeCurrent_DICOM,Exposure_DICOM,ExposureInuAs_DICOM,"
          "ExposureTime,RelativeXRayExposure_DICOM,ReportID,Report,MethodLabel,Labels,Localizations,"
          "LabelsLocalizationsBySentence,labelCUIS,LocalizationsCUIS", *rows, compress=True)


# The order of the columns in PhysioNet's tables.
VINDR = ("Aortic enlargement", "Atelectasis", "Calcification", "Cardiomegaly", "Clavicle fracture", "Consolidation",
         "Edema", "Emphysema", "Enlarged PA", "ILD", "Infiltration", "Lung Opacity", "Lung cavity", "Lung cyst",
         "Mediastinal shift", "Nodule/Mass", "Pleural effusion", "Pleural thickening", "Pneumothorax",
         "Pulmonary fibrosis", "Rib fracture", "Other lesion", "COPD", "Lung tumor", "Pneumonia", "Tuberculosis",
         "Other diseases", "No finding")


def vindr(folder: Path) -> None:
    """Nguyen et al. 2022 as PhysioNet gives it: three readers of a training film, one consensus of a test film."""
    def cells(*present):
        return ",".join("1" if name in present else "0" for name in VINDR)

    train = {f"{n:032x}": ["No finding"] * 3 for n in range(20)}
    train[f"{1:032x}"] = ["Cardiomegaly", "Cardiomegaly", "No finding"]
    train[f"{2:032x}"] = ["Nodule/Mass", "No finding", "No finding"]
    train[f"{3:032x}"] = ["Rib fracture", "Rib fracture", "Rib fracture"]
    lines(folder / "annotations/image_labels_train.csv", "image_id,rad_id," + ",".join(VINDR), *(
        f"{name},R{8 + reader},{cells(found)}" for name, votes in train.items() for reader, found in enumerate(votes)))
    lines(folder / "annotations/image_labels_test.csv",
          "image_id," + ",".join(VINDR).replace("Other diseases", "Other disease"),
          f"{99:032x},{cells('Pleural effusion', 'Lung Opacity')}")
    films(folder, *(f"train/{name}.dicom" for name in train), f"test/{99:032x}.dicom")


def vindr_kaggle(folder: Path) -> None:
    """The same as Kaggle gave it: a row per box and reader."""
    rows = [f"{n:032x},No finding,14,R{r},,,," for n in range(20) for r in (8, 9, 10)]
    rows += [f"{50:032x},Cardiomegaly,3,R{r},691.0,1375.0,1653.0,1831.0" for r in (8, 9)]
    rows += [f"{50:032x},Cardiomegaly,3,R8,700.0,1375.0,1653.0,1831.0", f"{50:032x},Nodule/Mass,8,R10,1,2,3,4"]
    lines(folder / "train.csv", "image_id,class_name,class_id,rad_id,x_min,y_min,x_max,y_max", *rows)
    films(folder, *(f"train/{n:032x}.dicom" for n in (*range(20), 50)))


def brax(folder: Path) -> None:
    """Reis et al. 2022, version 1.1.0."""
    labels = ("No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Lesion", "Lung Opacity", "Edema",
              "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion", "Pleural Other",
              "Fracture", "Support Devices")
    rows, names = [], []
    for number in range(20):
        place = f"id_{number:036x}/Study_{number}.1/Series_{number}.2/image-{number}.3"
        view = ("PA", "L", "AP", "RL", "LT-DECUB", "")[number % 6]
        cells = ",".join({"Edema": "1.0", "Fracture": "-1.0", "Pneumonia": "0.0"}.get(label, "") for label in labels)
        age = "85 or more" if number == 0 else "40"
        rows.append(f"Anonymized_DICOMs/{place}.dcm,images/{place}.png,id_{number:036x},F,{age},{number}.1,20080421,"
                    f"{cells},{view},2320,2828,1")
        names.append(f"images/{place}.png")
    lines(folder / "master_spreadsheet_update.csv", "DicomPath,PngPath,PatientID,PatientSex,PatientAge,AccessionNumber,"
          f"StudyDate,{','.join(labels)},ViewPosition,Rows,Columns,Manufacturer", *rows)
    films(folder, *names)


OPENI = ["normal", "Cardiomegaly/borderline;Pulmonary Artery/enlarged", "Opacity/lung/upper lobe/right;Pulmonary "
         "Atelectasis/upper lobe/right", "No Indexing", "Thickening/pleura;Opacity/ribs", "Catheters, Indwelling/right"]


def openi(folder: Path) -> None:
    """Demner-Fushman et al. 2016 as the tables of its films give it."""
    reports = [*OPENI, *["normal"] * 16]
    lines(folder / "indiana_reports.csv", "uid,MeSH,Problems,image,indication,comparison,findings,impression", *(
        f'{uid},"{terms}",x,"Chest, 2 views",XXXX,None.,"Heart size normal, lungs clear.",Normal.'
        for uid, terms in enumerate(reports, 1)))
    names = [(uid, f"{uid}_IM-{uid:04d}-{film}001.dcm.png", view)
             for uid in range(1, len(reports) + 1) for film, view in ((3, "Lateral"), (4, "Frontal"))]
    lines(folder / "indiana_projections.csv", "uid,filename,projection", *(",".join(map(str, row)) for row in names))
    films(folder, *(f"images/images_normalized/{name}" for _, name, _ in names))


def openi_xml(folder: Path) -> None:
    """The same reports as the National Library of Medicine gives them, with its names of films."""
    openi(folder)
    (folder / "indiana_reports.csv").unlink()
    for uid, terms in enumerate([*OPENI, *["normal"] * 16], 1):
        major = "".join(f"<major>{term}</major>" for term in terms.split(";"))
        lines(folder / f"ecgen-radiology/{uid}.xml", '<?xml version="1.0" encoding="utf-8"?><eCitation>'
              f'<uId id="CXR{uid}"/><MeSH>{major}<automatic>opacity</automatic></MeSH></eCitation>')
    for path in sorted((folder / "images/images_normalized").iterdir()):
        (folder / "NLMCXR_png").mkdir(exist_ok=True)
        path.rename(folder / "NLMCXR_png" / f"CXR{path.name.removesuffix('.dcm.png')}.png")


def rsna(folder: Path) -> None:
    """Shih et al. 2019, stage 2 of the challenge, with RSNA's mapping to ChestX-ray14."""
    names = [f"{n:08x}-14fd-4e49-80ba-63a80b6bddd6" for n in range(24)]
    kinds = ["Lung Opacity", "Normal", "No Lung Opacity / Not Normal"] * 8
    boxes = [row for name, kind in zip(names, kinds) for row in (
        [f"{name},264.0,152.0,213.0,379.0,1", f"{name},562.0,152.0,256.0,453.0,1"] if kind == "Lung Opacity" else
        [f"{name},,,,,0"])]
    lines(folder / "stage_2_train_labels.csv", "patientId,x,y,width,height,Target", *boxes)
    lines(folder / "stage_2_detailed_class_info.csv", "patientId,class", *(
        f"{name},{kind}" for name, kind in zip(names, kinds) for _ in range(2 if kind == "Lung Opacity" else 1)))
    (folder / "pneumonia-challenge-dataset-mappings_2018.json").write_text(json.dumps(
        [{"img_id": f"{n // 2:08d}_{n % 2:03d}.png", "subset_img_id": name, "StudyInstanceUID": "1.2", "SOPInstanceUID":
          "1.3", "SeriesInstanceUID": "1.4", "orig_labels": ["Pneumonia"]} for n, name in enumerate(names)]))
    films(folder, *(f"stage_2_train_images/{name}.dcm" for name in names))


def chexpertplus(folder: Path) -> None:
    """Chambon et al. 2024: one table of films and reports, CheXbert's labels as JSON lines."""
    rows, entries, names = [], [], []
    for split, number in (("train", 1), ("train", 2), ("valid", 64541)):
        for view in ("view1_frontal", "view2_lateral"):
            name = f"{split}/patient{number:05d}/study1/{view}.jpg"
            front = view.endswith("frontal")
            rows.append(f'{name},{name[:-3]}dcm,{"Frontal" if front else "Lateral"},{"AP" if front else ""},pid,1,68,'
                        f'Female,White,Non-Hispanic,No,"Narrative: one, two\nthree","clear, ""lungs""",normal,{split}')
            entries.append({"path_to_image": name, **{label: None for label in CHEXPERT_LABELS}, "Edema": 1.0,
                            "Fracture": -1.0, "Pneumonia": 0.0})
            names.append(name)
    lines(folder / "df_chexpert_plus_240401.csv", "path_to_image,path_to_dcm,frontal_lateral,ap_pa,deid_patient_id,"
          "patient_report_date_order,age,sex,race,ethnicity,interpreter_needed,report,section_findings,"
          "section_impression,split", *rows)
    lines(folder / "chexbert_labels/report_fixed.json", *map(json.dumps, entries))
    lines(folder / "chexbert_labels/impression_fixed.json", *(json.dumps({**entry, "Edema": 0.0}) for entry in entries))
    films(folder, *(f"PNG/{name[:-3]}png" for name in names))


def chexlocalize(folder: Path) -> None:
    """Saporta et al. 2022: CheXpert's validation and test films in folders of their own."""
    header = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(CHEXPERT_LABELS)
    cells = codes(**{label.replace(" ", "_"): "0.0" for label in CHEXPERT_LABELS} | {"Edema": "1.0"})
    lines(folder / "CheXpert/val_labels.csv", header,
          *(f"CheXpert-v1.0/valid/patient{n}/study1/view1_frontal.jpg,Male,73,Frontal,AP,{cells}"
            for n in (64541, 64542)))
    lines(folder / "CheXpert/test_labels.csv", "Path," + ",".join(CHEXPERT_LABELS),
          *(f"test/patient{n}/study1/view1_frontal.jpg,{cells}" for n in (64741, 64742)))
    films(folder, *(f"CheXpert/val/patient{n}/study1/view1_frontal.jpg" for n in (64541, 64542)),
          *(f"CheXpert/test/patient{n}/study1/view1_frontal.jpg" for n in (64741, 64742)))
    # 2 x 3 pixels, down the columns: 1 off, 2 on, 3 off.
    (folder / "CheXlocalize").mkdir()
    (folder / "CheXlocalize/gt_segmentations_test.json").write_text(json.dumps({
        "patient64741_study1_view1_frontal": {"Edema": {"size": [2, 3], "counts": "123"},
                                              "Airspace Opacity": {"size": [2, 3], "counts": "6"}}}))


# What READERS must have a layout for, by its names.
LAYOUTS = {"chexpert": chexpert, "csv": csv, "chestxray14": chestxray14, "mimic": mimic, "padchest": padchest,
           "vindr": vindr, "brax": brax, "openi": openi, "rsna": rsna, "chexpertplus": chexpertplus,
           "chexlocalize": chexlocalize}
